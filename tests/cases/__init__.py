"""What the layers are tested on: each family lists ways of calling its functions and modules.

A case says nothing about how it is tested. The tests take every case there is: values and gradients
against torch, gradcheck of every order, torch.func, torch.compile, autocast, memory formats and so on.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
EVERY_TEST = "every test"


@dataclass(frozen=True)
class Case:
    """One way of calling a function, written for any namespace `F`: ours or torch.nn.functional.

    `shapes` are those of the floating-point tensors that `call` takes behind `F`, all differentiable.
    `leave_out` maps the name of a test that cannot hold for this case to the reason, which the test prints; or
    EVERY_TEST, where the torch that is installed knows no such call.
    `precision` is float32 where torch's own kernel keeps its constants in float32, whatever it is called with.
    """

    name: str
    call: Callable[..., Tensor]
    shapes: tuple[Shape, ...]
    low: float = -2.0  # range of the random elements
    high: float = 2.0
    leave_out: dict[str, str] = field(default_factory=dict)
    precision: torch.dtype = torch.float64

    def inputs(self, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0) -> list[Tensor]:
        """Random tensors of the case's shapes, the same for the same seed on every device."""
        generator = torch.Generator().manual_seed(seed)
        tensors = []
        for shape in self.shapes:
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
            values = (self.low + (self.high - self.low) * uniform).to(device, dtype)
            tensors.append(values.requires_grad_())
        return tensors


@dataclass(frozen=True)
class ModuleCase:
    """One way of constructing a module, written for any namespace `nn`, and the shapes it is called with.

    `call(module, *tensors)` where a module wants more than the tensors (integer inputs, masks, a state).
    `leave_out` and `precision` as in `Case`.
    """

    name: str
    build: Callable[[Any], torch.nn.Module]
    shapes: tuple[Shape, ...]
    call: Callable[..., Any] | None = None
    leave_out: dict[str, str] = field(default_factory=dict)
    precision: torch.dtype = torch.float64


def all_cases() -> list[Case]:
    """The functional cases of every family."""
    return [case for family in _families() for case in getattr(family, "CASES", [])]


def all_module_cases() -> list[ModuleCase]:
    """The module cases of every family."""
    return [case for family in _families() for case in getattr(family, "MODULE_CASES", [])]


def _families() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
