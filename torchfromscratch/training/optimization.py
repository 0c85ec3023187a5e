"""The optimiser and its learning rate over time."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from torchfromscratch.training.config import Config
from torchfromscratch.training.models import optimizer_namespace

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
SCHEDULES = ("one-cycle", "constant")
WARM_UP_SHARE = 0.25


def build_optimizer(config: Config, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the settings ask for, over all of the model's weights."""
    optimizer = getattr(optimizer_namespace(config.layers), OPTIMIZERS[config.optimizer])
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        settings |= {"momentum": config.momentum, "nesterov": config.momentum > 0}
    return optimizer(model.parameters(), **settings)


def build_scheduler(config: Config, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rate at each of the training's steps, as a share of `config.lr`."""
    schedule = {"one-cycle": one_cycle, "constant": lambda step, steps: 1.0}[config.schedule]
    return LambdaLR(optimizer, lambda step: schedule(step, steps))


def one_cycle(step: int, steps: int) -> float:
    """A linear warm-up to 1 and a cosine down to 0, for any number of steps.

    torch's OneCycleLR divides by zero where its warm-up is a single step, as in very short trainings.
    """
    warm_up = WARM_UP_SHARE * steps
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2
