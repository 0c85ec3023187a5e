"""A case in words, and as a program that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from torchfromscratch.check.case import Case

if TYPE_CHECKING:
    from torchfromscratch.check.layers import Layer
    from torchfromscratch.check.subject import Subject


def describe(case: Case) -> str:
    """input (1, 1, 3, 3), weight (1, 1, 2, 2), stride 1 …"""
    words = [
        f"{name} {tuple(value.shape)}" if isinstance(value, Tensor) else f"{name} {value}"
        for name, value in case.arguments.items()
        if value is not None
    ]
    return ", ".join(words)


def program(case: Case, checked: Subject, layer: Layer) -> str:
    """What to run to see it."""
    lines = ["import torch", ""]
    for name, value in case.arguments.items():
        lines.append(f"{name} = {_literal(value)}" + (".requires_grad_()" if name in case.tensors else ""))
    lines.append(f"y = {checked.name}({', '.join(checked.takes)})")
    return "\n".join(lines)


def _literal(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"torch.tensor({value.tolist()}, dtype={value.dtype})"
