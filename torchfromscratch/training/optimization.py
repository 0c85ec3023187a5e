"""The optimiser and its learning rate over time."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from torchfromscratch._torch_private import BatchNorm
from torchfromscratch.training.config import Config
from torchfromscratch.training.models import optimizer_namespace

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
SCHEDULES = ("one-cycle", "triangular", "constant")
WARM_UP_SHARE = 0.25
FIRST_RATE, PEAK, LAST_RATE = 0.2, 0.23, 0.07  # of the triangular schedule: shares of the rate, and of the steps


def build_optimizer(config: Config, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the settings ask for, over all weights of the model that are trained.

    Normalisation's biases may have a rate of their own; their weight decay is then divided by it, so that a step of SGD
    or AdamW decays all weights alike. Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
    section 3.4.
    """
    optimizer = getattr(optimizer_namespace(config.layers), OPTIMIZERS[config.optimizer])
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        settings |= {"momentum": config.momentum, "nesterov": config.momentum > 0}
    norm_biases = {id(bias) for bias in _norm_biases(model)} if config.norm_bias_lr != 1 else set()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [weight for weight in trained if id(weight) not in norm_biases]}]
    if norm_biases:
        groups.append(
            {
                "params": [weight for weight in trained if id(weight) in norm_biases],
                "lr": config.lr * config.norm_bias_lr,
                "weight_decay": config.weight_decay / config.norm_bias_lr,
            }
        )
    return optimizer(groups, **settings)


def _norm_biases(model: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    for layer in model.modules():
        if isinstance(layer, (BatchNorm, torch.nn.GroupNorm, torch.nn.LayerNorm)) and layer.bias is not None:
            yield layer.bias


def build_scheduler(config: Config, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rate at each of the training's steps, as a share of `config.lr`."""
    schedule = {"one-cycle": one_cycle, "triangular": triangular, "constant": lambda step, steps: 1.0}[config.schedule]
    return LambdaLR(optimizer, lambda step: schedule(step, steps))


def one_cycle(step: int, steps: int) -> float:
    """A linear warm-up to 1 and a cosine down to 0, for any number of steps.

    torch's OneCycleLR divides by zero where its warm-up is a single step, as in very short trainings.
    """
    warm_up = WARM_UP_SHARE * steps
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2


def triangular(step: int, steps: int) -> float:
    """In straight lines from FIRST_RATE up to 1 at PEAK of the steps and down to LAST_RATE at their end.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, listing 4.
    """
    peak = max(int(PEAK * steps), 1)
    if step < peak:
        return FIRST_RATE + (1 - FIRST_RATE) * step / peak
    return 1 + (LAST_RATE - 1) * (step - peak) / max(steps - peak, 1)
