"""The networks to train, each written once for any namespace of layers.

A builder takes the layers as its first argument (`torch.nn` or `torchfromscratch.nn`), so the very
same network can be trained with either. A new network is a function and a line in `MODELS`.
"""

import importlib
from collections import OrderedDict
from types import ModuleType

import torch

from torchfromscratch.training.errors import UserError

LAYERS = {"scratch": "torchfromscratch", "torch": "torch"}


def layer_namespace(layers: str) -> ModuleType:
    """The modules that `--layers` names: `torchfromscratch.nn` for "scratch", `torch.nn` for "torch"."""
    return importlib.import_module(f"{LAYERS[layers]}.nn")


def optimizer_namespace(layers: str) -> ModuleType:
    """The optimisers that `--layers` names: `torchfromscratch.optim` or `torch.optim`."""
    return importlib.import_module(f"{LAYERS[layers]}.optim")


def lenet5(nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """LeNet-5 with the sizes of LeCun et al. 1998, and today's ReLU, max pooling and plain linear output.

    LeCun padded his 28×28 digits to 32×32; so does the first convolution for pictures below 32. Below
    16 pixels the second convolution pads too, or nothing would be left to convolve.
    """
    _require_size("lenet5", image_size, at_least=4)
    padding1 = 2 if image_size < 32 else 0
    padding2 = 2 if image_size < 16 else 0
    pooled1 = (image_size + 2 * padding1 - 4) // 2
    pooled2 = (pooled1 + 2 * padding2 - 4) // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, 6, 5, padding=padding1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5, padding=padding2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(16 * pooled2**2, 120),
            relu3=nn.ReLU(),
            linear2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            linear3=nn.Linear(84, classes),
        )
    )


def smallvgg(nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """Three blocks of two 3×3 convolutions and a 2×2 max pooling, 32, 64 and 128 wide, then 256 → classes."""
    _require_size("smallvgg", image_size, at_least=8)

    def block(inputs: int, outputs: int) -> torch.nn.Module:
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(inputs, outputs, 3, padding=1),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(outputs, outputs, 3, padding=1),
                relu2=nn.ReLU(),
                pool=nn.MaxPool2d(2),
            )
        )

    return nn.Sequential(
        OrderedDict(
            block1=block(in_channels, 32),
            block2=block(32, 64),
            block3=block(64, 128),
            flatten=nn.Flatten(),
            linear1=nn.Linear(128 * (image_size // 8) ** 2, 256),
            relu=nn.ReLU(),
            linear2=nn.Linear(256, classes),
        )
    )


MODELS = {"lenet5": lenet5, "smallvgg": smallvgg}


def build_model(name: str, *, nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """The network `name`, made of the layers in `nn`, with weights drawn from torch's global generator.

    Shapes: (N, in_channels, image_size, image_size) → (N, classes).

    Raises:
        UserError: if there is no such network, or pictures of image_size are too small for it.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; choose one of: {', '.join(MODELS)}")
    return MODELS[name](nn, in_channels, image_size, classes)


def _require_size(name: str, image_size: int, at_least: int) -> None:
    if image_size < at_least:
        raise UserError(
            f"{name} needs pictures of at least {at_least}×{at_least} pixels, these have "
            f"{image_size}×{image_size}: choose another --model, or a larger --image-size for a folder"
        )
