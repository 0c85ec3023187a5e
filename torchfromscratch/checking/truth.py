"""The right answers in one case, from the layer's formula, and wrong ones from the formula with something changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchfromscratch.checking.case import Case

if TYPE_CHECKING:
    from torchfromscratch.checking.layers import Layer

STEP = 1e-6  # of finite differences in float64: the error of a central difference is of its square


class Truth:
    """A layer in one case. Its arguments are attributes: `truth.weight`; `truth.g` is dL/dy."""

    tolerance: float = 1e-8  # of the largest element: sums of a few thousand products err by 1e-12

    def __init__(self, layer: Layer, case: Case, dtype: torch.dtype = torch.float64) -> None:
        self.layer, self.case = layer, case
        self.definitions: dict[Any, dict[str, Tensor]] = {}  # what other definitions give, as tables of mistakes ask
        self.tensors = {
            name: x.detach().to(dtype, memory_format=torch.contiguous_format, copy=True).requires_grad_()
            for name, x in case.tensors.items()
        }
        self.arguments = {**layer.defaults, **case.arguments, **self.tensors}
        self.outputs = layer(**self.arguments)
        self.gs = [g.to(dtype) for g in case.cotangents(self.outputs)]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["arguments"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def g(self) -> Tensor:
        """dL/dy of the only output."""
        return self.gs[0]

    @property
    def y(self) -> Tensor:
        """The only output."""
        return self.outputs[0]

    @cached_property
    def right(self) -> dict[str, Tensor]:
        """The outputs and gradients by name."""
        return {**name_outputs(self.outputs), **self.gradients(self.outputs)}

    def gradients(self, outputs: Sequence[Tensor], gs: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """What each tensor's gradient is if these are the outputs."""
        differentiable = [(y, g) for y, g in zip(outputs, gs or self.gs, strict=True) if y.requires_grad]
        if not differentiable:
            return {f"{name}.grad": torch.zeros_like(x) for name, x in self.tensors.items()}
        ys, cotangents = zip(*differentiable, strict=True)
        found = torch.autograd.grad(ys, [*self.tensors.values()], cotangents, retain_graph=True, materialize_grads=True)
        return {f"{name}.grad": gradient for name, gradient in zip(self.tensors, found, strict=True)}

    def output(self, **changed: Any) -> Tensor:
        """The output with some arguments changed."""
        return self.layer(**{**self.arguments, **changed})[0]

    def gradient(self, name: str, g: Tensor | Sequence[Tensor] | None = None, **changed: Any) -> Tensor:
        """dL/d `name` as the formula gives it for another dL/dy, or with some arguments changed."""
        arguments = {**self.arguments, **changed}
        source = arguments[name].detach().requires_grad_()
        outputs = self.layer(**{**arguments, name: source})
        gs = self.gs if g is None else [g] if isinstance(g, Tensor) else g
        return torch.autograd.grad(outputs, source, gs, materialize_grads=True)[0]

    def accepts(self, what: str, yours: Tensor) -> Tensor:
        """Elements of a gradient that are right, though others would be, too: none, for a formula says which."""
        return torch.zeros_like(yours, dtype=torch.bool)

    def tangents(self, tangents: Sequence[Tensor]) -> list[Tensor]:
        """How the outputs move with these tangents of the tensors."""

        def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
            return self.layer(**{**self.arguments, **dict(zip(self.tensors, tensors, strict=True))})

        return list(torch.func.jvp(outputs, tuple(x.detach() for x in self.tensors.values()), tuple(tangents))[1])


def name_outputs(outputs: Sequence[Any]) -> dict[str, Any]:
    """`output`, or `output[0]`, `output[1]` …"""
    if len(outputs) == 1:
        return {"output": outputs[0]}
    return {f"output[{i}]": output for i, output in enumerate(outputs)}


def confirm(truth: Truth) -> None:
    """Raise if finite differences along one direction contradict the formula's gradients.

    At a kink they differ from side to side and say nothing.
    """
    if truth.arguments.get("padding_idx") is not None:  # a row without gradient, whatever its derivative is
        return
    generator = torch.Generator().manual_seed(1)
    directions = {
        name: torch.randn(x.shape, generator=generator, dtype=torch.float64) for name, x in truth.tensors.items()
    }

    def loss(step: float) -> float:
        moved = {name: x.detach() + step * directions[name] for name, x in truth.tensors.items()}
        outputs = truth.layer(**{**truth.arguments, **moved})
        return sum(float((y * g).sum()) for y, g in zip(outputs, truth.gs, strict=True))

    middle = sum(float((y.detach() * g).sum()) for y, g in zip(truth.outputs, truth.gs, strict=True))
    ahead, behind = (loss(STEP) - middle) / STEP, (middle - loss(-STEP)) / STEP
    slope = sum(float((truth.right[f"{name}.grad"] * v).sum()) for name, v in directions.items())
    size = 1 + max(abs(ahead), abs(behind), abs(middle))
    if abs(ahead - behind) < 1e-3 * size and abs((ahead + behind) / 2 - slope) > 1e-3 * size:
        raise AssertionError(f"{truth.layer.name}: finite differences give {(ahead + behind) / 2}, the formula {slope}")
