"""The truth of a function that nobody knows: its own values, and finite differences of them.

Where the differences to both sides are not the same, the function has a kink, and every slope between them is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking.case import Case
from torchfromscratch.checking.layers import CannotCheckError
from torchfromscratch.checking.truth import Truth, name_outputs

STEP = 1e-6  # in float64: differences err by 1e-10
COARSE_STEP = 2.0**-7  # where a function computes in float32
TOLERANCE = 1e-5  # of the largest element, for the step above
COARSE_TOLERANCE = 2e-2
KINK = 1e-3  # how far the slopes of both sides are apart at a kink, at least
MOST = 4096  # elements of all inputs: each costs two calls


@dataclass(frozen=True)
class Slopes:
    """The outputs, and how each moves with each element of each tensor: (output elements, input elements)."""

    outputs: tuple[Tensor, ...]
    left: dict[str, Tensor]
    right: dict[str, Tensor]

    def middle(self, name: str) -> Tensor:
        """The slopes, or at a kink their mean."""
        return (self.left[name] + self.right[name]) / 2


@dataclass(frozen=True)
class Unknown:
    """A function in the place of a layer: of `names`, those in `constants` have no gradient."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    name: str = "function"
    derivation: str = ""
    constants: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    known: dict[str, Slopes] = field(default_factory=dict)

    def __call__(self, **arguments: Any) -> tuple[Tensor, ...]:
        """The outputs."""
        output = self.function(*[arguments[name] for name in self.arguments])
        return tuple(output) if isinstance(output, (tuple, list)) else (output,)

    def truth(self, case: Case, dtype: torch.dtype = torch.float64) -> DifferencesTruth:
        """The right answers in a case."""
        return DifferencesTruth(self, case)

    def slopes(self, case: Case) -> Slopes:
        """The differences at this case's tensors, made once."""
        key = str({name: x.tolist() for name, x in case.tensors.items()})
        if key not in self.known:
            self.known[key] = self._slopes(case)
        return self.known[key]

    def _values(self, case: Case, moved: Mapping[str, Tensor]) -> Tensor:
        copies = {name: x.clone() if isinstance(x, Tensor) else x for name, x in case.arguments.items()}
        with torch.no_grad():
            outputs = self(**{**copies, **moved})
        return torch.cat([y.detach().double().flatten() for y in outputs])

    def step(self, case: Case) -> float:
        """How far inputs are moved: farther where a function rounds them to float32."""
        before = self._values(case, {})
        near = self._values(case, {name: x * (1 + 1e-11) + 1e-11 for name, x in case.tensors.items()})
        far = self._values(case, {name: x * (1 + 1e-2) + 1e-2 for name, x in case.tensors.items()})
        return COARSE_STEP if torch.equal(before, near) and not torch.equal(before, far) else STEP

    def _slopes(self, case: Case) -> Slopes:
        size = sum(x.numel() for x in case.tensors.values())
        if size > MOST:
            raise CannotCheckError(
                f"finite differences of {size} elements take too long: give inputs of at most {MOST}"
            )
        with torch.no_grad():
            outputs = tuple(y.detach().double().clone() for y in self(**_copies(case)))
        middle, step = self._values(case, {}), self.step(case)
        left, right = {}, {}
        for name, x in case.tensors.items():
            columns: list[list[Tensor]] = [[], []]
            for i in range(x.numel()):
                for side, sign in enumerate((-1, 1)):
                    moved = x.detach().contiguous().clone()
                    moved.view(-1)[i] += sign * step
                    columns[side].append(sign * (self._values(case, {name: moved}) - middle) / step)
            left[name], right[name] = (
                torch.stack(side, 1) if side else middle.new_zeros(len(middle), 0) for side in columns
            )
        return Slopes(outputs, left, right)


def _copies(case: Case) -> dict[str, Any]:
    return {name: x.clone() if isinstance(x, Tensor) else x for name, x in case.arguments.items()}


class DifferencesTruth(Truth):
    """What finite differences give in one case."""

    def __init__(self, function: Unknown, case: Case) -> None:
        self.layer, self.case = function, case  # type: ignore[assignment]
        self.slopes = function.slopes(case)
        self.tensors = {name: x.detach() for name, x in case.tensors.items()}
        self.arguments = dict(case.arguments)
        self.outputs = self.slopes.outputs
        self.gs = case.cotangents(self.outputs)
        self.tolerance: float = COARSE_TOLERANCE if function.step(case) == COARSE_STEP else TOLERANCE

    @cached_property
    def right(self) -> dict[str, Tensor]:
        """The outputs and gradients by name."""
        return {**name_outputs(self.outputs), **self.gradients(self.outputs)}

    def gradients(self, outputs: Sequence[Tensor], gs: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """The differences times dL/dy, summed."""
        return {f"{name}.grad": self.gradient(name, gs) for name in self.tensors}

    def gradient(self, name: str, g: Tensor | Sequence[Tensor] | None = None, **changed: Any) -> Tensor:
        """The same of one tensor."""
        gs = self.gs if g is None else [g] if isinstance(g, Tensor) else g
        together = torch.cat([part.flatten() for part in gs])
        return (together @ self.slopes.middle(name)).view(self.tensors[name].shape)

    def output(self, **changed: Any) -> Tensor:
        """Another output is not known."""
        raise ValueError("a function that nobody knows has no other output")

    def accepts(self, what: str, yours: Tensor) -> Tensor:
        """Elements that lie between the slopes of both sides, at kinks."""
        name = what.removesuffix(".grad")
        together = torch.cat([part.flatten() for part in self.gs]).unsqueeze(1)
        left, right = together * self.slopes.left[name], together * self.slopes.right[name]
        has_kink = (self.slopes.left[name] - self.slopes.right[name]).abs() > KINK * (
            1 + self.slopes.middle(name).abs()
        )
        low, high = (side.sum(0).view(yours.shape) for side in (torch.minimum(left, right), torch.maximum(left, right)))
        margin = self.tolerance * (1 + high.abs() + low.abs())
        return has_kink.any(0).view(yours.shape) & (yours >= low - margin) & (yours <= high + margin)

    def tangents(self, tangents: Sequence[Tensor]) -> list[Tensor]:
        """How the outputs move with these tangents."""
        moved = sum(self.slopes.middle(name) @ t.flatten() for name, t in zip(self.tensors, tangents, strict=True))
        sizes = [y.numel() for y in self.outputs]
        parts = moved.split(sizes)  # type: ignore[union-attr]
        return [part.view(y.shape) for part, y in zip(parts, self.outputs, strict=True)]
