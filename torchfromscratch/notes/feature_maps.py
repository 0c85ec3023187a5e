"""What the layers of a CNN make of a picture, drawn as in the notes.

Source: lecture notes, "The picture through the layers convolution, ReLU, max pooling".
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch import nn
from torchfromscratch.training.batches import Augmentation, Batches
from torchfromscratch.training.checkpoint import load_checkpoint
from torchfromscratch.training.data import load_dataset
from torchfromscratch.training.errors import UserError
from torchfromscratch.training.models import build_model
from torchfromscratch.training.picture_files import read_picture

FILTERS = 8
SEED = 24  # the notes'
SMALLEST_DEVIATION = 1 / 255  # a shade: a picture of one colour has none
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
    """A picture after each layer of a trained network that keeps rows and columns.

    None is the first test picture of the data set that the network was trained on. Another picture takes the size and
    the channels of those, and mean 0 and deviation 1.
    Raises UserError if the checkpoint, the data set or the picture cannot be read.
    """
    if not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    state = load_checkpoint(checkpoint, "Name a run's best.pt or last.pt.")
    channels, size = (state["dataset"][name] for name in ("channels", "image_size"))
    classes = len(state["dataset"]["classes"])
    network = build_model(state["config"]["model"], nn=nn, in_channels=channels, image_size=size, classes=classes)
    network.load_state_dict(state["model"])
    if picture is None:
        pixels, images = _first_test_picture(state["config"], size)
    else:
        pixels = load_picture(picture, "L" if channels == 1 else "RGB", size)
        images = (pixels - pixels.mean()) / pixels.std(correction=0).clamp(min=SMALLEST_DEVIATION)
    stages = {"picture": pixels}

    def keep(name: str, output: Tensor) -> None:
        if output.dim() == 4:
            stages[name] = output

    for name, module in network.named_modules():
        if not list(module.children()):
            kind = type(module).__name__
            module.register_forward_hook(lambda _, __, output, name=f"{name} {kind}": keep(name, output))
    with torch.no_grad():
        network.eval()(images)
    return stages


def _first_test_picture(config: dict[str, Any], size: int) -> tuple[Tensor, Tensor]:
    """Of a run's data set, (1, C, H, W) each: from 0 to 1 as one sees it, and normalised as the network does."""
    name, place = config["dataset"], Path(config["data_dir"])
    try:
        dataset = load_dataset(name, place, size if name == "folder" else None)
    except UserError as error:
        raise UserError(f"the network's data set, {name} in {place}, cannot be read: name a picture to draw") from error
    image = dataset.test.images[:1]
    batches = Batches(dataset, batch_size=1, augmentation=Augmentation(0, "none"), seed=0, device=torch.device("cpu"))
    return image / 255, batches.normalise(image)


def draw(title: str, maps: Tensor, path: Path) -> None:
    """All channels side by side on one scale: grey from 0 on, blue to red around 0 if some values are negative.

    The picture itself is drawn as it is, in colour if it has three channels.
    """
    channels, height, width = maps.shape[1:]
    if title == "picture":
        figure, axes = _figure(height, width)
        axes.imshow(maps[0].permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{title}   {height}×{width}")
    else:
        grid = _side_by_side(maps[0])
        highest = maps.abs().max().item() or 1.0  # where all maps are 0
        signed = maps.min().item() < 0
        figure, axes = _figure(*grid.shape)
        colours = {"cmap": "RdBu_r", "vmin": -highest} if signed else {"cmap": "gray", "vmin": 0.0}
        image = axes.imshow(grid.numpy(), vmax=highest, interpolation="nearest", **colours)
        figure.colorbar(image, ax=axes)
        axes.set_title(f"{title}   {channels} maps, {height}×{width}")
    axes.axis("off")
    figure.savefig(path, dpi=110)


def _side_by_side(maps: Tensor) -> Tensor:
    """Maps (C, H, W) in rows of equal length, with nothing (NaN) between them."""
    channels = len(maps)
    columns = next(number for number in range(math.isqrt(channels - 1) + 1, channels + 1) if channels % number == 0)
    gap = max(1, maps.shape[2] // 16)
    apart = F.pad(maps, (0, gap, 0, gap), value=math.nan).unflatten(0, (-1, columns))
    return apart.transpose(1, 2).flatten(2).flatten(0, 1)[:-gap, :-gap]


def _figure(height: int, width: int) -> tuple[Figure, Axes]:
    """A figure for something of such a shape, the longer side seven inches."""
    scale = 7 / max(height, width)
    figure = Figure(figsize=(max(width * scale, 2) + 1.2, max(height * scale, 2) + 0.6), layout="constrained")
    return figure, figure.subplots()
