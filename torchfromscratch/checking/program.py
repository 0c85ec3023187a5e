"""A case in words, and as a program that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchfromscratch.checking.case import Case

if TYPE_CHECKING:
    from torchfromscratch.checking.differences import Unknown
    from torchfromscratch.checking.layers import Layer
    from torchfromscratch.checking.subject import Subject


def describe(case: Case, takes: tuple[str, ...]) -> str:
    """input (1, 1, 3, 3), weight (1, 1, 2, 2), stride 1 …"""
    words = [
        f"{name} {tuple(value.shape)}{_lying(value)}" if isinstance(value, Tensor) else f"{name} {value}"
        for name, value in case.arguments.items()
        if name in takes and value is not None
    ]
    return ", ".join(words)


def _lying(tensor: Tensor) -> str:
    return "" if tensor.is_contiguous() else f" with strides {tensor.stride()}"


def program(case: Case, subject: Subject, layer: Layer | Unknown) -> str:
    """What to run to see yours beside the formula's."""
    outputs = layer(**{**layer.defaults, **case.arguments})
    gs = case.cotangents(outputs)
    tensors = [name for name in case.tensors if name in subject.takes]
    lines = ["import torch", ""]
    for name, value in case.arguments.items():
        if name in subject.takes:
            lines.append(f"{name} = {_literal(value)}{'.requires_grad_()' if name in tensors else ''}")
    lines += [f"{_g(i, gs)} = {_literal(g)}" for i, g in enumerate(gs)]
    lines.append(f"output = {subject.text()}")
    given = _g(0, gs) if len(gs) == 1 else "[" + ", ".join(_g(i, gs) for i in range(len(gs))) + "]"
    lines.append(f"gradients = torch.autograd.grad(output, [{', '.join(tensors)}], {given})")
    lines.append("print(output, *gradients, sep='\\n')")
    return "\n".join(lines)


def _g(i: int, gs: list[Tensor]) -> str:
    return "grad_output" if len(gs) == 1 else f"grad_output_{i}"


def _literal(value: Any) -> str:
    """A tensor with its numbers and, where they do not lie contiguously, its strides."""
    if not isinstance(value, Tensor):
        return repr(value)
    value = value.detach()
    dtype = f", dtype={value.dtype}"
    if value.is_contiguous() and value.numel():
        return f"torch.tensor({value.tolist()}{dtype})"
    if not value.numel():
        return f"torch.empty({tuple(value.shape)}{dtype})"
    size = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    memory = torch.as_strided(value, (size,), (1,), value.storage_offset())
    return f"torch.tensor({memory.tolist()}{dtype}).as_strided({tuple(value.shape)}, {value.stride()})"
