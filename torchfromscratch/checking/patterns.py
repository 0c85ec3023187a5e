"""Mistakes that can be made with any function: what the right numbers and the wrong ones tell without a formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchfromscratch.checking.mistakes.row import Mistake, NotApplicableError
from torchfromscratch.checking.truth import Truth


def batch(t: Truth) -> int:
    """The first dimension of the output, or of the first tensor where the output is one number."""
    shapes = [t.outputs[0].shape, *[x.shape for x in t.tensors.values()]]
    return next((shape[0] for shape in shapes if shape), 1)


def positions(t: Truth) -> int:
    """How many elements of the output share a sample and a channel."""
    return t.outputs[0].shape[2:].numel()


def reciprocal(count: float) -> float:
    """1 / count; of nothing there is no mean."""
    return 1 / count if count else math.nan


# A factor is a fact; for inputs of one shape alone, what those after the first few mean is a guess
CERTAIN = 4
FACTORS: tuple[tuple[str, Callable[[Truth], float]], ...] = (
    ("The sign is wrong.", lambda t: -1),
    ("It is twice what is right.", lambda t: 2),
    ("It is half of what is right.", lambda t: 0.5),
    ("It is minus twice what is right.", lambda t: -2),
    ("The mean over the batch in place of the sum.", lambda t: reciprocal(batch(t))),
    ("The sum over the batch in place of the mean: it is N times what is right.", lambda t: batch(t)),
    ("The mean over the positions in place of the sum.", lambda t: reciprocal(positions(t))),
    ("The sum over the positions in place of the mean.", lambda t: positions(t)),
    ("The mean over batch and positions in place of the sum.", lambda t: reciprocal(batch(t) * positions(t))),
    ("The sum over batch and positions in place of the mean.", lambda t: batch(t) * positions(t)),
    ("It is divided by the number of the output's elements.", lambda t: reciprocal(t.outputs[0].numel())),
    ("It is multiplied with the number of the output's elements.", lambda t: t.outputs[0].numel()),
    ("It is divided by the number of the input's elements.", lambda t: reciprocal(first(t).numel())),
    ("It is multiplied with the number of the input's elements.", lambda t: first(t).numel()),
    ("It is divided by the number of channels or classes.", lambda t: 1 / first(t).shape[1]),
    ("It is multiplied with the number of channels or classes.", lambda t: first(t).shape[1]),
    ("It is divided by the length of the last dimension.", lambda t: 1 / first(t).shape[-1]),
    ("It is multiplied with the length of the last dimension.", lambda t: first(t).shape[-1]),
    ("It is divided by the number of the output's channels.", lambda t: 1 / t.outputs[0].shape[1]),
    ("It is divided by the batch minus 1.", lambda t: batch(t) / (batch(t) - 1)),
)


def first(t: Truth) -> Tensor:
    """The first tensor that has a gradient."""
    return next(iter(t.tensors.values()))


Change = Callable[[Tensor], Tensor]


def sample(index: int) -> Change:
    """One sample of dL/dy, the others 0."""

    def change(g: Tensor) -> Tensor:
        if not g.dim():
            raise NotApplicableError
        kept = torch.zeros_like(g)
        kept[index] = g[index]
        return kept

    return change


COTANGENTS: tuple[tuple[str, str, Change], ...] = (
    ("dL/dy is ignored: it is taken for 1.", "Everything that comes back is multiplied with dL/dy.", torch.ones_like),
    (
        "dL/dy is replaced by its mean.",
        "Each element of the output has its own dL/dy.",
        lambda g: g.mean().expand_as(g),
    ),
    ("dL/dy is replaced by its sum.", "Each element of the output has its own dL/dy.", lambda g: g.sum().expand_as(g)),
    ("Only the last sample counts.", "The gradient is the sum over all samples: += in place of =.", sample(-1)),
    ("Only the first sample counts.", "The gradient is the sum over all samples.", sample(0)),
    ("dL/dy is squared.", "dL/dy is a factor, once.", lambda g: g * g),
    ("The sign of dL/dy is lost.", "dL/dy is a factor.", torch.abs),
    ("Only positive dL/dy come back.", "dL/dy is a factor, whatever its sign.", lambda g: g.clamp(min=0)),
    ("Only the sign of dL/dy counts.", "dL/dy is a factor.", torch.sign),
    ("dL/dy is transposed.", "dL/dy lies as the output does.", lambda g: g.transpose(-1, -2)),
    (
        "dL/dy is read in the wrong order of dimensions.",
        "dL/dy lies as the output does.",
        lambda g: g.transpose(-1, -2).reshape(g.shape),
    ),
)


def flips(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """All flips, along one dimension and along several."""
    for count in range(1, x.dim() + 1):
        for dims in itertools.combinations(range(-x.dim(), 0), count):
            yield f"dimension {' and '.join(map(str, dims))}", x.flip(dims)


def shift(x: Tensor, dim: int, by: int) -> Tensor:
    """Moved along a dimension, zeros behind."""
    moved = x.roll(by, dim)
    moved.select(dim, 0 if by > 0 else -1).zero_()
    return moved


def for_gradients() -> Iterator[Mistake]:
    """What can happen to any gradient."""
    yield Mistake(
        "It is 0: something was detached, or forgotten.", "", _of_gradient(lambda t, w: torch.zeros_like(t.right[w]))
    )
    yield Mistake(
        "It is multiplied with what it is taken by.",
        "",
        _of_gradient(lambda t, what: t.right[what] * t.tensors[_name(what)].detach()),
    )
    for sentence, explanation, change in COTANGENTS:
        yield Mistake(
            sentence,
            explanation,
            lambda t, what, change=change: t.gradient(_name(what), [change(g) for g in t.gs]),
        )


def for_all() -> Iterator[Mistake]:
    """What can happen to any tensor."""
    for sentence, factor in FACTORS:
        yield Mistake(sentence, "", lambda t, what, factor=factor: factor(t) * t.right[what])
    yield Mistake("It is transposed.", "", lambda t, what: t.right[what].transpose(-1, -2))
    for count in (1, 2):
        for dims in itertools.combinations((-1, -2, -3), count):
            where = " and ".join(map(str, dims))
            yield Mistake(
                f"It is flipped along dimension {where}.", "", lambda t, what, dims=dims: t.right[what].flip(dims)
            )
    for dim, by in itertools.product((-1, -2, 0), (1, -1)):
        yield Mistake(
            f"It is shifted by {by} along dimension {dim}.",
            "",
            lambda t, what, dim=dim, by=by: shift(t.right[what], dim, by),
        )
    yield Mistake("Only the last sample is there.", "", lambda t, what: sample(-1)(t.right[what]))
    yield Mistake("Only the first sample is there.", "", lambda t, what: sample(0)(t.right[what]))
    yield Mistake("Its sum stands in every element.", "", lambda t, what: t.right[what].sum().expand_as(t.right[what]))
    yield Mistake(
        "Its mean stands in every element.", "", lambda t, what: t.right[what].mean().expand_as(t.right[what])
    )
    yield Mistake(
        "Its rows and columns are read in the wrong order.",
        "",
        lambda t, what: t.right[what].transpose(-1, -2).reshape(t.right[what].shape),
    )
    yield Mistake("Its sign is lost.", "", lambda t, what: t.right[what].abs())


def exchange_gradients(names: tuple[str, ...]) -> Iterator[Mistake]:
    """Gradients in another's place."""
    for name in names:
        yield Mistake(
            f"It is dL/d {name}: the gradients are returned in another order.",
            "backward returns one gradient for each argument of forward, in the same order.",
            _of_gradient(lambda t, what, name=name: t.right[f"{name}.grad"] if what != f"{name}.grad" else None),
        )


def _of_gradient(value: Callable[[Truth, str], Tensor | None]) -> Callable[[Truth, str], Tensor | None]:
    return lambda t, what: value(t, what) if what.endswith(".grad") else None


def _name(what: str) -> str:
    if not what.endswith(".grad"):
        raise NotApplicableError
    return what.removesuffix(".grad")


def common(names: tuple[str, ...]) -> tuple[Mistake, ...]:
    """The rows that every function has, for tensors of these names."""
    return (*for_gradients(), *for_all(), *exchange_gradients(names))


# Where a function is wrong, when no row fits


def elements(
    yours: Tensor, right: Tensor, input: Tensor | None, is_close: Callable[[Tensor, Tensor], Tensor]
) -> set[str]:
    """What all of the wrong elements have in common."""
    wrong = ~is_close(yours, right)
    found: set[str] = set()
    for dim in range(right.dim()):
        size = right.shape[dim]
        along = wrong.movedim(dim, 0)
        if size > 2 and not along[1:-1].any():
            found.add(f"at the border of dimension {dim - right.dim()}")
        if size > 1 and not along[: size - 1].any():
            found.add(f"at the last index of dimension {dim - right.dim()}")
        if size > 1 and not along[1:].any():
            found.add(f"at the first index of dimension {dim - right.dim()}")
    if right.dim() > 3 and not wrong[..., 1:-1, 1:-1].any():
        found.add("at the border")
    if input is not None and input.shape == right.shape:
        if not (wrong & (input != 0)).any():
            found.add("where the input is 0")
        if not (wrong & (input >= 0)).any():
            found.add("where the input is negative")
        if not (wrong & (input <= 0)).any():
            found.add("where the input is positive")
        repeated = (input.flatten().unsqueeze(1) == input.flatten()).sum(1).view(input.shape) > 1
        if not (wrong & ~repeated).any():
            found.add("where the input has ties")
    return found
