"""What, besides settings and data, decides how sums round, and so with which weights a training ends."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from torchfromscratch.training.distributed import Group


def conditions(device: torch.device, group: Group) -> dict[str, Any]:
    """The conditions now."""
    return {
        "threads": torch.get_num_threads(),
        "processes": group.size,
        "device": device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


def take_up(recorded: Mapping[str, Any], device: torch.device, group: Group) -> list[str]:
    """Takes up again what can be taken up, the number of threads; returns in words what has become different."""
    if 1 <= recorded["threads"] <= (os.cpu_count() or 1):
        torch.set_num_threads(recorded["threads"])
    now = conditions(device, group)
    return [f"{name} {recorded[name]} before, {now[name]} now" for name in now if recorded[name] != now[name]]
