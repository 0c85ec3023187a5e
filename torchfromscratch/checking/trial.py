"""A function beside the truth in one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking.case import Case
from torchfromscratch.checking.differences import KINK, STEP, Unknown
from torchfromscratch.checking.layers import Layer
from torchfromscratch.checking.subject import Subject
from torchfromscratch.checking.truth import Truth, name_outputs

TOLERANCE = Truth.tolerance
SINGLE_TOLERANCE = 1e-4  # in float32
# How much more than the formula in the same dtype, and than its eps, a function may err
GROSS = 0.3  # no rounding, of the largest element
ROUNDING_FACTOR = {torch.float32: 100, torch.bfloat16: 20, torch.float16: 40}
SECOND = "second derivative"


@dataclass
class Trial:
    """One case: the right answers and what the function gave, or why it refused, and what it wrote into."""

    case: Case
    truth: Truth
    given: Mapping[str, Any]
    refusal: str = ""
    in_backward: bool = False
    written: Sequence[str] = field(default_factory=tuple)
    tolerance: float = TOLERANCE
    dtype: torch.dtype = torch.float64
    coarse: dict[torch.dtype, dict[str, Tensor]] = field(default_factory=dict)

    def is_wrong(self, what: str) -> bool:
        """Whether this quantity was given and is wrong."""
        if what not in self.given:
            return False
        yours, right = self.given[what], self.truth.right[what]
        if close(yours, right, self.tolerance):
            return False
        if yours is None and what.endswith(".grad"):
            yours = torch.zeros_like(right)  # to autograd: torch's own answer for a batch of nothing
        if not what.endswith(".grad") or not isinstance(yours, Tensor) or yours.shape != right.shape:
            return True
        yours = yours.detach().double()
        return not bool((close_elements(yours, right, self.tolerance) | self.truth.accepts(what, yours)).all())

    def is_rounding(self, what: str, dtype: torch.dtype = torch.float32) -> bool:
        """Whether the error is no more than this dtype's."""
        yours, right = self.given[what], self.truth.right[what]
        if not isinstance(yours, Tensor) or yours.shape != right.shape:
            return False
        error, scale = largest(yours.detach().double() - right), max(1.0, largest(right))
        if error > GROSS * scale:
            return False
        if dtype not in self.coarse:
            self.coarse[dtype] = self.truth.layer.truth(self.case, dtype).right
        own = largest((self.coarse[dtype][what].double() - right).nan_to_num())
        return error <= ROUNDING_FACTOR[dtype] * (own + torch.finfo(dtype).eps * scale)


def largest(x: Tensor) -> float:
    """The largest magnitude."""
    return float(x.detach().abs().max()) if x.numel() else 0.0


def close(yours: Any, right: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two tensors are equal to rounding."""
    if not isinstance(yours, Tensor) or yours.shape != right.shape:
        return False
    if not right.numel():
        return True
    return bool(close_elements(yours, right, tolerance).all())


def close_elements(yours: Tensor, right: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Which elements are equal to rounding."""
    yours, right = yours.detach().to(torch.float64), right.detach()
    finite = right.isfinite() & yours.isfinite()
    scale = max(1.0, float(right[right.isfinite()].abs().max())) if right.isfinite().any() else 1.0
    near = (yours - right).abs() <= tolerance * scale
    return torch.where(finite, near, (yours == right) | (yours.isnan() & right.isnan()))


def attempt(subject: Subject, layer: Layer | Unknown, case: Case, dtype: torch.dtype = torch.float64) -> Trial:
    """Both answers in one case."""
    truth = layer.truth(case)
    tolerance = truth.tolerance if dtype == torch.float64 else SINGLE_TOLERANCE
    leaves = {name: x.detach().to(dtype).requires_grad_() for name, x in case.tensors.items()}
    tensors = {name: x for name, x in {**case.arguments, **leaves}.items() if isinstance(x, Tensor)}
    before = {name: x.detach().clone() for name, x in tensors.items()}
    given: dict[str, Any] = {}
    in_backward, written = False, []
    try:
        outputs = call(subject, {**case.arguments, **leaves})
        if len(outputs) != len(truth.outputs):
            raise TypeError(f"it returns {len(outputs)} outputs, and {truth.layer.name} has {len(truth.outputs)}")
        given |= name_outputs([y.detach().clone() if isinstance(y, Tensor) else y for y in outputs])
        if has_shapes(outputs, truth.outputs):
            in_backward = True
            gs = [g.to(y.dtype) for g, y in zip(case.cotangents(truth.outputs), outputs, strict=True)]
            copies = [g.clone() for g in gs]
            found = backward(outputs, list(leaves.values()), gs)
            given |= {f"{name}.grad": gradient for name, gradient in zip(leaves, found, strict=True)}
            written = ["dL/dy"] * any(not torch.equal(g, copy) for g, copy in zip(gs, copies, strict=True))
    except Exception as error:
        refusal = f"{type(error).__name__}: {error}"
        return Trial(case, truth, {}, refusal, in_backward)
    finally:
        changed = [name for name, x in tensors.items() if not is_unchanged(x, before[name])]
        for name in changed:
            tensors[name].detach().copy_(before[name])
    written += [name for name in changed if not name.startswith("running_")]
    return Trial(case, truth, given, written=written, tolerance=tolerance, dtype=dtype)


def is_unchanged(x: Tensor, before: Tensor) -> bool:
    """Whether a tensor is as it was, NaN included."""
    return torch.equal(x.detach().nan_to_num(), before.nan_to_num())


def call(subject: Subject, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs of the function."""
    output = subject(arguments)
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)


def run(
    subject: Subject, case: Case, dtype: torch.dtype = torch.float64, needed: Sequence[str] | None = None
) -> tuple[dict[str, Tensor], tuple[Any, ...], list[Tensor]]:
    """One call: the tensors, of which all or the `needed` ones are to get a gradient, the outputs, and dL/dy."""
    leaves = {
        name: x.detach().to(dtype).requires_grad_(needed is None or name in needed) for name, x in case.tensors.items()
    }
    outputs = call(subject, {**case.arguments, **leaves})
    gs = [g.to(y.dtype) for g, y in zip(case.cotangents(outputs), outputs, strict=True)]
    return leaves, outputs, gs


def has_shapes(outputs: Sequence[Any], right: Sequence[Tensor]) -> bool:
    """Whether the outputs have the right shapes."""
    return len(outputs) == len(right) and all(
        isinstance(y, Tensor) and y.shape == truth.shape for y, truth in zip(outputs, right, strict=True)
    )


def backward(
    outputs: Sequence[Tensor],
    leaves: Sequence[Tensor],
    gs: Sequence[Tensor],
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradients; None where there are none."""
    differentiable = [(y, g) for y, g in zip(outputs, gs, strict=True) if y.requires_grad]
    if not differentiable:
        return (None,) * len(leaves)
    ys, cotangents = zip(*differentiable, strict=True)
    return torch.autograd.grad(ys, leaves, cotangents, retain_graph, create_graph, allow_unused=True)


@dataclass
class Second:
    """The derivatives of Σ u · gradient, by what they are taken by: yours and the right ones, or why there are none."""

    given: dict[str, Tensor]
    right: dict[str, Tensor]
    refusal: str = ""

    def wrong(self, tolerance: float) -> list[str]:
        """By what the derivatives are wrong."""
        return [
            name for name, right in self.right.items() if self.given and not close(self.given[name], right, tolerance)
        ]


def second(subject: Subject, layer: Layer | Unknown, case: Case) -> Second:
    """The derivatives of the gradients, yours beside the right ones."""
    truth = layer.truth(case)
    gs = [g.clone().requires_grad_() for g in truth.gs]
    generator = torch.Generator().manual_seed(2)
    us = [torch.randint(1, 4, x.shape, generator=generator).double() for x in truth.tensors.values()]
    right = _second(truth.outputs, truth.tensors, gs, us)
    leaves = {name: x.detach().requires_grad_() for name, x in case.tensors.items()}
    gs = [g.detach().requires_grad_() for g in case.cotangents(truth.outputs)]
    try:
        given = _second(call(subject, {**case.arguments, **leaves}), leaves, gs, us)
    except Exception as error:
        return Second({}, right, f"{type(error).__name__}: {error}")
    return Second(given, right)


def _second(
    outputs: Sequence[Tensor], tensors: Mapping[str, Tensor], gs: Sequence[Tensor], us: Sequence[Tensor]
) -> dict[str, Tensor]:
    sources = {**tensors, **{"dL/dy" if len(gs) == 1 else f"dL/dy[{i}]": g for i, g in enumerate(gs)}}
    gradients = backward(outputs, [*tensors.values()], gs, create_graph=True)
    if any(type(node).__name__ == "Error" for node in graph_nodes(gradients)):
        raise RuntimeError("backward is marked with @once_differentiable")
    products = [(d * u).sum() for d, u in zip(gradients, us, strict=True) if d is not None and d.requires_grad]
    if not products:
        return {name: torch.zeros_like(x) for name, x in sources.items()}
    found = torch.autograd.grad(sum(products[1:], products[0]), [*sources.values()], materialize_grads=True)
    return dict(zip(sources, found, strict=True))


def follows_output(subject: Subject, trial: Trial) -> bool:
    """Whether the gradients are those of the outputs that were given, by differences along one direction."""
    tensors = {name: x.detach() for name, x in trial.case.tensors.items()}
    given = {name: trial.given.get(f"{name}.grad") for name in tensors}
    found = {name: gradient for name, gradient in given.items() if isinstance(gradient, Tensor)}
    if len(found) < len(tensors):
        return False
    generator = torch.Generator().manual_seed(4)
    directions = {name: torch.randn(x.shape, generator=generator, dtype=x.dtype) for name, x in tensors.items()}

    def loss(step: float) -> float:
        moved = {name: x + step * directions[name] for name, x in tensors.items()}
        outputs = call(subject, {**trial.case.arguments, **moved})
        return sum(float((y.detach() * g).sum()) for y, g in zip(outputs, trial.truth.gs, strict=True))

    difference = (loss(STEP) - loss(-STEP)) / (2 * STEP)
    slope = sum(float((gradient * directions[name]).sum()) for name, gradient in found.items())
    return abs(difference - slope) <= KINK * (1 + abs(difference))


def graph_nodes(outputs: Sequence[Any]) -> list[Any]:
    """All nodes that autograd has behind these outputs."""
    found: dict[Any, None] = {}
    waiting = [y.grad_fn for y in outputs if isinstance(y, Tensor) and y.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += [before for before, _ in node.next_functions if before is not None]
    return list(found)


def contiguous(case: Case) -> Case:
    """The same numbers, lying contiguously."""
    arguments = {name: x.contiguous() if isinstance(x, Tensor) else x for name, x in case.arguments.items()}
    return replace(case, arguments=arguments, cotangent=replace(case.cotangent, as_contiguous=True))


def second_by_differences(subject: Subject, function: Unknown, case: Case) -> Second:
    """As `second`, along one direction for each source: yours beside how the gradients move."""
    gs = [g.contiguous().clone() for g in function.truth(case).gs]
    generator = torch.Generator().manual_seed(2)
    us = [torch.randint(1, 4, x.shape, generator=generator).double() for x in case.tensors.values()]
    sources = {**{n: x.detach() for n, x in case.tensors.items()}, **{f"dL/dy[{i}]": g for i, g in enumerate(gs)}}

    def gradients(sources: Mapping[str, Tensor], create_graph: bool) -> dict[str, Tensor]:
        leaves = {name: x.detach().clone().requires_grad_() for name, x in sources.items()}
        tensors = {name: leaves[name] for name in case.tensors}
        outputs = call(subject, {**case.arguments, **tensors})
        moving = [leaves[f"dL/dy[{i}]"] for i in range(len(gs))]
        if create_graph:
            return _second(outputs, tensors, moving, us)
        found = backward(outputs, [*tensors.values()], moving)
        total = sum(((d * u).sum() for d, u in zip(found, us, strict=True) if d is not None), torch.zeros(()).double())
        return {"sum": total}

    try:
        given = gradients(sources, True)
        yours, right = {}, {}
        for name, mine in zip(sources, given.values(), strict=True):
            direction = torch.randn(mine.shape, generator=generator, dtype=torch.float64)
            step = function.step(case)
            sums = {
                s: float(gradients({**sources, name: sources[name] + s * step * direction}, False)["sum"])
                for s in (-1, -0.5, 0, 0.5, 1)
            }
            near, far = (sums[0.5] - sums[-0.5]) / step, (sums[1] - sums[-1]) / (2 * step)
            bend = (
                sums[1] - 2 * sums[0] + sums[-1]
            ) / step  # of both sides: where there is one, there is no derivative
            if max(abs(near - far), abs(bend)) < KINK * (1 + abs(far)):
                right[name] = torch.tensor(far).double()
                yours[name] = (mine * direction).sum()
    except Exception as error:
        return Second({}, {}, f"{type(error).__name__}: {error}")
    return Second(yours, right)
