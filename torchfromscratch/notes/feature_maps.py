"""What the layers of a CNN make of a picture, drawn as in the notes.

Source: lecture notes, "The picture through the layers convolution, ReLU, max pooling".
"""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib.cbook
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch import nn
from torchfromscratch.training.checkpoint import load_checkpoint
from torchfromscratch.training.errors import UserError
from torchfromscratch.training.models import build_model
from torchfromscratch.training.picture_files import read_picture

FILTERS = 8
SEED = 24  # the notes'
LONGEST_SIDE = 480


def load_picture(path: Path | None, mode: str = "L", size: int | None = None) -> Tensor:
    """A picture as (1, C, H, W) from 0 to 1; None is a portrait that matplotlib ships.

    `mode` is "L" for grey or "RGB"; `size` makes it a square of so many pixels.
    Raises UserError if it cannot be read.
    """
    source = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False) if path is None else path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd in a file; what cannot be read is an error
        picture = read_picture(source)[0].convert(mode)
    if size is None:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    else:
        picture = picture.resize((size, size))
    pixels = torch.from_numpy(np.array(picture)).float() / 255
    return pixels.view(1, *pixels.shape[:2], -1).permute(0, 3, 1, 2).contiguous()


def through_the_notes_layers(picture: Tensor) -> dict[str, Tensor]:
    """The picture after Conv2d (8 filters 3×3, padding 2), and that after ReLU, LeakyReLU and pooling."""
    convolution = nn.Conv2d(picture.shape[1], FILTERS, 3, padding=2, bias=False)
    deviation = (2 / convolution.weight[0].numel()) ** 0.5  # He's
    with torch.no_grad():
        convolution.weight.normal_(0, deviation, generator=torch.Generator().manual_seed(SEED))
        maps = convolution(picture)
    return {
        "picture": picture,
        "conv2d": maps,
        "conv2d relu": F.relu(maps),
        "conv2d leaky_relu": F.leaky_relu(maps, 0.1),
        "conv2d relu max_pool2d": F.max_pool2d(F.relu(maps), 2),
        "conv2d relu avg_pool2d": F.avg_pool2d(F.relu(maps), 2),
    }


def through_a_trained_network(checkpoint: Path, picture: Path | None) -> dict[str, Tensor]:
    """The picture after each layer of a trained network that keeps its rows and columns.

    The picture takes the size and the channels that the network was trained on, and mean 0 and deviation 1.
    Raises UserError if the checkpoint or the picture cannot be read.
    """
    if not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    state = load_checkpoint(checkpoint)
    channels, size = (state["dataset"][name] for name in ("channels", "image_size"))
    classes = len(state["dataset"]["classes"])
    network = build_model(state["config"]["model"], nn=nn, in_channels=channels, image_size=size, classes=classes)
    network.load_state_dict(state["model"])
    pixels = load_picture(picture, "L" if channels == 1 else "RGB", size)
    stages = {"picture": pixels}

    def keep(name: str, output: Tensor) -> None:
        if output.dim() == 4:
            stages[name] = output

    for name, module in network.named_modules():
        if not list(module.children()):
            kind = type(module).__name__
            module.register_forward_hook(lambda _, __, output, name=f"{name} {kind}": keep(name, output))
    with torch.no_grad():
        network.eval()((pixels - pixels.mean()) / pixels.std())
    return stages


def draw(title: str, maps: Tensor, path: Path) -> None:
    """The first eight channels in grey, each from its lowest to its highest value; a picture of three in colour."""
    whole = maps.shape[1] in (1, 3)
    channels = [maps[0].permute(1, 2, 0).squeeze(-1)] if whole else list(maps[0, :FILTERS])
    height, width = maps.shape[2:]
    columns = 1 if whole else 4
    rows = -(-len(channels) // columns)
    cell = 4.0 if whole else 2.4
    figure = Figure(figsize=(columns * cell, rows * cell * min(height / width, 2) + 0.5), layout="constrained")
    shown = (
        f"{title}   {len(channels)} of {maps.shape[1]} maps, {height}×{width}"
        if not whole
        else f"{title}   {height}×{width}"
    )
    figure.suptitle(shown, fontsize=11)
    for axes, channel in zip(figure.subplots(rows, columns, squeeze=False).flat, channels, strict=False):
        axes.imshow(channel.numpy(), cmap="gray", interpolation="nearest")
    for axes in figure.axes:
        axes.axis("off")
    figure.savefig(path, dpi=110)
