"""The truth of a function that nobody knows: its own values, and finite differences of them.

Where the differences to both sides are not the same, the function has a kink. There a gradient is right that lies
between those of points nearby, and that tells how the function moves along every direction in which it has no kink:
all of several largest elements together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
APART = 1e-4  # of points nearby: far for the step, near for the function
NEARBY = 12  # points, the first with all numbers above, the second with all below
NEAR_TOLERANCE = 1e-3  # how far slopes at such points may be apart without a kink
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
    known: dict[str, Any] = field(default_factory=dict)

    def __call__(self, **arguments: Any) -> tuple[Tensor, ...]:
        """The outputs.

        Raises:
            CannotCheckError: if one of them is no tensor of real numbers.
        """
        output = self.function(*[arguments[name] for name in self.arguments])
        outputs = tuple(output) if isinstance(output, (tuple, list)) else (output,)
        for y in outputs:
            if not isinstance(y, Tensor) or y.is_complex():
                kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
                raise CannotCheckError(
                    f"check compares tensors of real numbers, and an output of the function is {kind}"
                )
        return outputs

    def truth(self, case: Case, dtype: torch.dtype = torch.float64) -> DifferencesTruth:
        """The right answers in a case."""
        return DifferencesTruth(self, case)

    def slopes(self, case: Case) -> Slopes:
        """The differences at this case's tensors, made once."""
        found: Slopes = self._once("here", case, lambda: self._slopes(case))
        return found

    def nearby(self, case: Case) -> list[Slopes]:
        """The differences at points nearby, made once."""
        found: list[Slopes] = self._once("nearby", case, lambda: [self._slopes(near) for near in _neighbours(case)])
        return found

    def _once(self, what: str, case: Case, make: Callable[[], Any]) -> Any:
        key = f"{what} {[x.tolist() for x in case.tensors.values()]}"
        if key not in self.known:
            self.known[key] = make()
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


def _neighbours(case: Case) -> list[Case]:
    """All numbers moved up, all moved down, and each its own way."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for i in range(NEARBY):
        moved = {}
        for name, x in case.tensors.items():
            way = torch.rand(x.shape, generator=generator, dtype=x.dtype) + 0.5
            if i > 1:
                way = way * (torch.randint(2, x.shape, generator=generator) * 2 - 1)
            moved[name] = x.detach() + APART * (way if i != 1 else -way)
        found.append(replace(case, arguments={**case.arguments, **moved}))
    return found


def _copies(case: Case) -> dict[str, Any]:
    return {name: x.clone() if isinstance(x, Tensor) else x for name, x in case.arguments.items()}


class DifferencesTruth(Truth):
    """What finite differences give in one case."""

    def __init__(self, function: Unknown, case: Case) -> None:
        self.layer: Unknown = function  # type: ignore[assignment]
        self.case = case
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
        """Elements at kinks that lie between the slopes of both sides and of points nearby."""
        name = what.removesuffix(".grad")
        left, right = self.slopes.left[name], self.slopes.right[name]
        scale = KINK * (1 + self.slopes.middle(name).abs())
        if self.tolerance == COARSE_TOLERANCE:
            return ((left - right).abs() > scale).any(0).view(yours.shape)
        nearby = [slopes.middle(name) for slopes in self.layer.nearby(self.case)]
        # at a jump, both sides are as steep, and points nearby are not
        apart = torch.stack([(slopes - side).abs() > scale for slopes in nearby for side in (left, right)])
        has_kink = (apart.any(0) | ((left - right).abs() > scale)).any(0)
        together = torch.cat([part.flatten() for part in self.gs])
        near = torch.stack([together @ slopes for slopes in nearby])
        sides = together.unsqueeze(1) * left, together.unsqueeze(1) * right
        low = torch.cat([near, torch.minimum(*sides).sum(0, keepdim=True)]).amin(0)
        high = torch.cat([near, torch.maximum(*sides).sum(0, keepdim=True)]).amax(0)
        x = self.tensors[name].flatten()
        for value in x[has_kink].unique():  # equal elements may take each other's part
            tied = has_kink & (x == value)
            low[tied], high[tied] = low[tied].min(), high[tied].max()
        margin = NEAR_TOLERANCE * (1 + high.abs() + low.abs())
        given = yours.flatten()
        accepted = has_kink & (given >= low - margin) & (given <= high + margin)
        return (accepted & ~self._ties(name, given, has_kink, near)).view(yours.shape)

    def _ties(self, name: str, yours: Tensor, has_kink: Tensor, near: Tensor) -> Tensor:
        """Equal elements whose gradients do not add up to what the output does if all of them are moved at once."""
        x = self.tensors[name].flatten()
        found = torch.zeros_like(has_kink)
        for value in x[has_kink].unique():
            tied = has_kink & (x == value)
            sums = near[:, tied].sum(1)
            margin = NEAR_TOLERANCE * (1 + float(near[:, tied].abs().sum(1).max()))
            is_smooth = float(sums.max() - sums.min()) <= margin
            if is_smooth and abs(float(yours[tied].sum() - sums.mean())) > margin:
                found |= tied
        return found

    def tangents(self, tangents: Sequence[Tensor]) -> list[Tensor]:
        """How the outputs move with these tangents."""
        moved = sum(self.slopes.middle(name) @ t.flatten() for name, t in zip(self.tensors, tangents, strict=True))
        sizes = [y.numel() for y in self.outputs]
        parts = moved.split(sizes)  # type: ignore[union-attr]
        return [part.view(y.shape) for part, y in zip(parts, self.outputs, strict=True)]
