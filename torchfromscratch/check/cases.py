"""Cases of each layer, as strategies of hypothesis: what it shrinks to is the simplest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from torch import Tensor

from torchfromscratch.check.case import LAYOUTS, STYLES, Case, Numbers
from torchfromscratch.check.layers import Layer

BATCHES = (1, 2, 3, 0)
COTANGENT_LAYOUTS = ("contiguous", "contiguous", *LAYOUTS[1:])


class Draws:
    """Arguments as they are drawn: those that the function does not take keep their defaults."""

    def __init__(self, draw: Any, layer: Layer, takes: tuple[str, ...], fixed: Mapping[str, Any]) -> None:
        self.draw, self.layer, self.takes, self.fixed = draw, layer, takes, fixed
        self.arguments: dict[str, Any] = {}

    def option(self, name: str, values: st.SearchStrategy) -> Any:
        """One option: as the caller fixed it, or drawn if the function takes it, or the default."""
        if name in self.fixed:
            value = self.fixed[name]
        elif name in self.takes:
            value = self.draw(values)
        else:
            value = self.layer.defaults[name]
        self.arguments[name] = value
        return value

    def size(self, name: str, values: st.SearchStrategy) -> int:
        """A number that shapes tensors, unless the caller fixed it."""
        return self.fixed[name] if name in self.fixed else self.draw(values)

    def tensor(self, name: str, *shape: int, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """A tensor argument, in any arrangement."""
        numbers = self.numbers()
        tensor = numbers.tensor(*shape)
        self.arguments[name] = tensor if change is None else change(tensor)
        return self.arguments[name]

    def maybe(self, name: str, *shape: int) -> None:
        """A tensor argument that may be None."""
        given = name in self.takes and (name not in self.layer.defaults or self.draw(st.sampled_from((1, 1, 1, 0))))
        if given:
            self.tensor(name, *shape)
        else:
            self.arguments[name] = None

    def numbers(self, layouts: tuple[str, ...] = LAYOUTS[:5]) -> Numbers:
        """A recipe for a tensor."""
        style = self.draw(st.sampled_from(STYLES))
        return Numbers(style, self.draw(st.integers(0, 999)), self.draw(st.sampled_from(layouts)))

    def case(self) -> Case:
        """What was drawn."""
        cotangent = self.numbers(COTANGENT_LAYOUTS)
        return Case({name: self.arguments[name] for name in self.layer.arguments if name in self.arguments}, cotangent)


def per_dim(dims: int, low: int, high: int) -> st.SearchStrategy:
    """One number for all dimensions, or one for each."""
    number = st.integers(low, high)
    return number if dims == 1 else number | st.tuples(*[number] * dims)


def each(value: Any, dims: int) -> tuple[int, ...]:
    """An option along each dimension."""
    return (value,) * dims if isinstance(value, int) else tuple(value)


def conv(draws: Draws) -> None:
    """Odd sizes, unequal channels, kernels of several shapes and every option."""
    dims = int(draws.layer.name[-2])
    groups = draws.option("groups", st.sampled_from((1, 1, 2)))
    _, padding, dilation = (
        each(draws.option(name, per_dim(dims, low, high)), dims)
        for name, low, high in (("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 2))
    )
    kernel = each(draws.size("kernel_size", st.tuples(*[st.integers(1, 3 if dims < 3 else 2)] * dims)), dims)
    size = []
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        least = max(1, d * (k - 1) + 1 - 2 * p)
        size.append(least + draws.draw(st.integers(0, 4 if dims < 3 else 2)))
    in_channels = draws.size("in_channels", st.integers(1, 3).map(lambda c: c * groups))
    out_channels = draws.size("out_channels", st.integers(1, 3).map(lambda c: c * groups))
    draws.tensor("input", draws.draw(st.sampled_from(BATCHES)), in_channels, *size)
    draws.tensor("weight", out_channels, in_channels // groups, *kernel)
    draws.maybe("bias", out_channels)


STRATEGIES: dict[str, Callable[[Draws], None]] = {f"conv{n}d": conv for n in (1, 2, 3)}


def strategy(layer: Layer, takes: tuple[str, ...], fixed: Mapping[str, Any]) -> st.SearchStrategy[Case]:
    """Cases of the layer for a function that takes these arguments."""

    @st.composite
    def cases(draw: Any) -> Case:
        draws = Draws(draw, layer, takes, fixed)
        STRATEGIES[layer.name](draws)
        return draws.case()

    return cases()


def drawn(cases: st.SearchStrategy[Case], count: int, seed: int) -> list[Case]:
    """Up to `count` cases, the same for the same seed."""
    found: list[Case] = []

    @seeded(_shared(seed))
    @_settings(count, Phase.generate)
    @given(cases)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def smallest(cases: st.SearchStrategy[Case], count: int, seed: int, is_wrong: Callable[[Case], bool]) -> Case | None:
    """The smallest case that is wrong, from the first wrong one of those that `drawn` gives."""
    try:
        return find(cases, is_wrong, settings=_settings(count, Phase.generate, Phase.shrink), random=Random(seed))
    except NoSuchExample:
        return None


def _shared(seed: int) -> int:
    """The seed that `find` takes from Random(seed), so that it begins with the same cases."""
    return Random(seed).getrandbits(64)


def _settings(count: int, *phases: Phase) -> settings:
    return settings(
        max_examples=count, phases=phases, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
