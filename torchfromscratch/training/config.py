"""Every setting of a training run, and the values that are good for each data set and model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torchfromscratch.training.errors import UserError


@dataclass(frozen=True)
class Config:
    """The settings of one run: what is trained, on what, and how.

    Two runs with equal settings end with equal weights on a CPU, except for the settings in
    `FREE_ON_RESUME`, which do not touch the mathematics.

    Attributes:
        dataset: a key of `DATASET_DEFAULTS`.
        data_dir: where the data set lies, or is downloaded to.
        image_size: side in pixels that the pictures of a folder are brought to; None chooses one.
        model: a key of `models.MODELS`.
        layers: "scratch" for torchfromscratch's layers, loss and optimiser, "torch" for torch's.
        epochs: passes over the training pictures.
        batch_size: pictures in an optimiser step, over all processes together.
        lr: the highest learning rate that the schedule reaches.
        optimizer: a key of `OPTIMIZER_DEFAULTS`.
        momentum: of SGD (Nesterov's, where it is not 0).
        weight_decay: the optimiser's.
        norm_bias_lr: how many times the learning rate of all else normalisation layers' biases have.
        schedule: "one-cycle" (linear warm-up, cosine decay, per step), "triangular" (linear up and down) or "constant".
        label_smoothing: share of each label that all classes divide between them, in training.
        lookahead: whether weights are drawn back to their moving average every few steps, see `averaging`.
        crop_padding: random crops shift a picture by up to this many pixels; 0 for none.
        crop_fill: what moves in at a shifted picture's edge, "black" or "reflect", the picture itself mirrored there.
        flip: which training pictures are mirrored: "none", "random" (half of them, drawn anew every epoch) or
            "alternating" (half of them in one epoch, the other half in the next).
        test_views: what the network answers from in the last test: "single", the picture; "mirrored", and its mirror
            image; "shifted", and both shifted by a pixel.
        device: "auto", "cpu", "cuda" or "mps".
        channels_last: whether images and weights lie in channels-last memory format.
        amp: whether forward and backward run in mixed precision.
        compile: whether the model is compiled with torch.compile.
        seed: of initial weights, order and augmentation.
        checkpoint_every: optimiser steps between checkpoints; 0 for one at the end of each epoch only.
    """

    dataset: str
    data_dir: str
    image_size: int | None
    model: str
    layers: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: str
    momentum: float
    weight_decay: float
    norm_bias_lr: float
    schedule: str
    label_smoothing: float
    lookahead: bool
    crop_padding: int
    crop_fill: str
    flip: str
    test_views: str
    device: str
    channels_last: bool
    amp: bool
    compile: bool
    seed: int
    checkpoint_every: int


SMALLEST_FACTOR = 1e-18  # of the rate; weight decay is divided by it

FREE_ON_RESUME = {"data_dir", "device", "checkpoint_every"}

COMMON_DEFAULTS: dict[str, Any] = {
    "dataset": "cifar10",
    "data_dir": "data",
    "image_size": None,
    "model": "smallvgg-bn",
    "layers": "scratch",
    "batch_size": 128,
    "lr": 0.05,
    "weight_decay": 5e-4,
    "optimizer": "sgd",
    "momentum": 0.9,
    "norm_bias_lr": 1.0,
    "schedule": "one-cycle",
    "label_smoothing": 0.0,
    "lookahead": False,
    "crop_fill": "black",
    "test_views": "single",
    "device": "auto",
    "channels_last": False,
    "amp": False,
    "compile": False,
    "seed": 0,
    "checkpoint_every": 0,
}

# A mirrored digit is another sign or none, so digits are never flipped. Crops pay in the long run and cost
# in a short one, so nobody's own pictures are cropped unless asked for, or by airbench's training. Scikit-learn's 1,437
# pictures are few, hence small batches and strong weight decay, chosen on a fifth of them that was not trained on.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "cifar10": {"epochs": 20, "crop_padding": 4, "flip": "random"},
    "cifar100": {"epochs": 40, "crop_padding": 4, "flip": "random"},
    "mnist": {"epochs": 5, "model": "lenet5", "crop_padding": 2, "flip": "none"},
    "fashion-mnist": {"epochs": 10, "crop_padding": 2, "flip": "random"},
    "digits": {
        "epochs": 30,
        "model": "lenet5",
        "batch_size": 16,
        "weight_decay": 5e-3,
        "crop_padding": 1,
        "flip": "none",
    },
    "folder": {"epochs": 20, "crop_padding": 0, "flip": "random"},
}

# Transformers train badly with SGD, which takes the same step along weights with large and with small gradients.
# Airbench comes with a training of its own. Its source divides the rate by what momentum and Nesterov's step make of a
# gradient in all, 1 + 1 / (1 − 0.85), and the decay by the rate: 11.5 / 7.67 and 0.0153 / 11.5.
# Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, listing 4.
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"optimizer": "adamw"},
    "airbench": {
        "epochs": 10,
        "batch_size": 1024,
        "lr": 1.5,
        "momentum": 0.85,
        "weight_decay": 1.33e-3,
        "norm_bias_lr": 64.0,
        "schedule": "triangular",
        "label_smoothing": 0.2,
        "lookahead": True,
        "crop_padding": 2,
        "crop_fill": "reflect",
        "flip": "alternating",
        "test_views": "shifted",
    },
}

# What of a data set's defaults is not good for a model. ResNet-18's 11 million weights make a step expensive however
# few pictures it sees, and it learns the digits in fewer passes. MNIST's and Fashion-MNIST's pictures are simpler than
# CIFAR-10's: airbench needs fewer passes, but for so few of them smaller batches.
DATASET_AND_MODEL_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "resnet18"): {"epochs": 8, "batch_size": 32},
    ("digits", "vit"): {"epochs": 20, "batch_size": 32},
    ("digits", "airbench"): {"batch_size": 128, "crop_padding": 1, "flip": "none"},
    ("mnist", "airbench"): {"epochs": 3, "batch_size": 512, "lr": 0.75, "flip": "none"},
    ("fashion-mnist", "airbench"): {"epochs": 6, "batch_size": 512, "lr": 0.75},
}

# The rates above are SGD's; the others, which scale each weight's step themselves, have their own.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "adamw": {"lr": 1e-3, "weight_decay": 1e-2},
}


# A product sums over channels, which a kernel reads in one piece where they lie last. cuDNN recommends it as well.
CUDA_DEFAULTS: dict[str, Any] = {"channels_last": True}


def _on_cuda(device: str) -> bool:
    """Whether a run would take a GPU by CUDA, which it takes where there is one."""
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def resolve(given: Mapping[str, Any]) -> Config:
    """The settings of a new run: what the user gave, and good defaults for the rest.

    Args:
        given: settings by name; None stands for "not given".
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    dataset = chosen.get("dataset", COMMON_DEFAULTS["dataset"])
    of_device = CUDA_DEFAULTS if _on_cuda(chosen.get("device", COMMON_DEFAULTS["device"])) else {}
    settings = {**COMMON_DEFAULTS, **of_device, **DATASET_DEFAULTS[dataset], **chosen}
    model = settings["model"]
    settings |= {**MODEL_DEFAULTS.get(model, {}), **DATASET_AND_MODEL_DEFAULTS.get((dataset, model), {}), **chosen}
    settings |= OPTIMIZER_DEFAULTS[settings["optimizer"]]
    if settings["flip"] == "none":  # who has seen no mirror image in training is not asked about one either
        settings["test_views"] = COMMON_DEFAULTS["test_views"]
    return Config(**{**settings, **chosen})


def resolve_resumed(given: Mapping[str, Any], recorded: Mapping[str, Any], run: str) -> Config:
    """The settings of a run that goes on: the recorded ones, which what the user gave must not contradict.

    Raises:
        UserError: if a setting was given that differs from the run's and would change its result.
    """
    if differing := contradictions(given, recorded):
        raise UserError(
            f"cannot resume {run} with other settings: {'; '.join(differing)}. "
            "Leave those options out to go on with the run, or start a new one without --resume."
        )
    free = {name: value for name, value in given.items() if name in FREE_ON_RESUME and value is not None}
    return Config(**{**recorded, **free})


def contradictions(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """How the settings that the user gave differ from a run's, where that would change its result."""
    return [
        f"--{name.replace('_', '-')} is {recorded.get(name)} in the run and {value} now"
        for name, value in given.items()
        if value is not None and name not in FREE_ON_RESUME and value != recorded.get(name)
    ]
