"""The optimiser and its learning rate over time."""

import torch
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from torchfromscratch.training.config import Config
from torchfromscratch.training.errors import UserError
from torchfromscratch.training.models import optimizer_namespace

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
SCHEDULES = ("one-cycle", "constant")
WARM_UP_SHARE = 0.25


def build_optimizer(config: Config, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the settings ask for, over all of the model's weights.

    Raises:
        UserError: if it is not written from scratch, and from-scratch layers are asked for.
    """
    namespace = optimizer_namespace(config.layers)
    optimizer = getattr(namespace, OPTIMIZERS[config.optimizer], None)
    if optimizer is None:
        raise UserError(
            f"{namespace.__name__} has no {OPTIMIZERS[config.optimizer]}: use --optimizer sgd or --layers torch"
        )
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        settings |= {"momentum": config.momentum, "nesterov": config.momentum > 0}
    return optimizer(model.parameters(), **settings)


def build_scheduler(config: Config, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning rate at each of the training's steps."""
    if config.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    return OneCycleLR(optimizer, max_lr=config.lr, total_steps=steps, pct_start=WARM_UP_SHARE, cycle_momentum=False)
