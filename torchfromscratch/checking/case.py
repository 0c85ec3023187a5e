"""One case: the arguments of a call and dL/dy, how they lie in memory, and a program that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

STYLES = ("small", "whole", "few", "real")
LAYOUTS = ("contiguous", "channels last", "transposed", "every second", "rows", "expanded")


@dataclass(frozen=True)
class Numbers:
    """A recipe for a tensor of any shape: the kind of its numbers, the seed, how they lie in memory."""

    style: str = "small"
    seed: int = 0
    layout: str = "contiguous"
    as_contiguous: bool = False

    def tensor(self, *shape: int) -> Tensor:
        """The tensor, in float64; `as_contiguous`: its numbers, lying contiguously."""
        tensor = to_layout(self._values(shape), self.layout)
        return tensor.contiguous() if self.as_contiguous else tensor

    def _values(self, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        if self.style == "real":
            return torch.randn(shape, generator=generator, dtype=torch.float64)
        low, high = {"small": (1, 6), "whole": (-4, 5), "few": (-1, 2)}[self.style]
        return torch.randint(low, high, shape, generator=generator).double()


def to_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers, lying in memory as `layout` says where the tensor has the dimensions for it."""
    dims = tensor.dim()
    if layout == "channels last" and dims in (4, 5):
        return tensor.contiguous(memory_format=torch.channels_last if dims == 4 else torch.channels_last_3d)
    if layout == "transposed" and dims >= 2:
        return tensor.mT.contiguous().mT
    if layout == "every second" and dims >= 1:
        return tensor.repeat_interleave(2, -1)[..., ::2]
    if layout == "rows" and dims >= 3:
        return tensor.flatten(2).mT.contiguous().mT.unflatten(2, tensor.shape[2:])
    if layout == "expanded" and tensor.numel():
        return tensor.flatten()[0].clone().expand(tensor.shape)
    return tensor.contiguous()


def roll(x: Tensor, by: int) -> Tensor:
    """The same numbers, each moved on by so many elements."""
    return x.flatten().roll(by).view(x.shape)


@dataclass(frozen=True, eq=False)
class Case:
    """What a layer is called with, by argument name, and the recipe of dL/dy; `constants` have no gradient."""

    arguments: dict[str, Any]
    cotangent: Numbers
    constants: tuple[str, ...] = ()

    def cotangents(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """dL/dy for each output."""
        recipes = [replace(self.cotangent, seed=self.cotangent.seed + i) for i in range(len(outputs))]
        return [recipe.tensor(*output.shape) for recipe, output in zip(recipes, outputs, strict=True)]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The arguments that have a gradient."""
        return {
            name: x
            for name, x in self.arguments.items()
            if isinstance(x, Tensor) and x.is_floating_point() and name not in self.constants
        }

    def size(self) -> int:
        """How much there is to read."""
        return sum(x.numel() for x in self.arguments.values() if isinstance(x, Tensor))
