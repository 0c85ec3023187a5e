"""How normalisation goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfromscratch.checking.formulas import per_channel, scale
from torchfromscratch.checking.mistakes.row import Mistake, NotApplicableError, forward, gradient
from torchfromscratch.checking.truth import Truth

INPUT = "With h = γ · dL/dy, dL/dx = (h − mean(h) − x̂ · mean(h · x̂)) / √(σ² + ε): mean and variance depend on x, too."
WEIGHT = "dL/dγ = Σ dL/dy · x̂ and dL/dβ = Σ dL/dy, over all that shares γ and β."
VARIANCE = "The variance is Σ (x − mean)² / n, without Bessel's n − 1, and ε is added to it below the root."


@dataclass(frozen=True)
class Statistics:
    """The input as its statistics are taken: over `dims` of `x`."""

    x: Tensor
    dims: list[int]

    @property
    def count(self) -> int:
        """How many numbers share a mean."""
        size = 1
        for dim in self.dims:
            size *= self.x.shape[dim]
        return size


def statistics(t: Truth, x: Tensor) -> Statistics:
    """What the layer normalises."""
    if t.layer.name == "batch_norm":
        if not t.training:
            raise NotApplicableError
        return Statistics(x, [0, *range(2, x.dim())])
    if t.layer.name == "instance_norm":
        return Statistics(x, [*range(2, x.dim())])
    if t.layer.name == "layer_norm":
        return Statistics(x, [*range(x.dim() - len(t.normalized_shape), x.dim())])
    groups = x.reshape(x.shape[0], t.num_groups, x.shape[1] // t.num_groups, *x.shape[2:])
    return Statistics(groups, [*range(2, groups.dim())])


Root = Callable[[Tensor, float], Tensor]


def root(variance: Tensor, eps: float) -> Tensor:
    """√(σ² + ε)."""
    return (variance + eps).sqrt()


def normalize(
    t: Truth,
    *,
    constant_mean: bool = False,
    constant_variance: bool = False,
    constant_center: bool = False,
    correction: int = 0,
    of_root: Root = root,
    affine: bool = True,
) -> Tensor:
    """The layer with something taken for a constant, or the variance or the root otherwise."""
    seen = statistics(t, t.input)
    mean = seen.x.mean(seen.dims, keepdim=True)
    inner = seen.x - (mean.detach() if constant_center else mean)
    variance = (inner * inner).sum(seen.dims, keepdim=True) / (seen.count - correction)
    outer = seen.x - (mean.detach() if constant_mean else mean)
    x = (outer / of_root(variance.detach() if constant_variance else variance, t.eps)).reshape(t.input.shape)
    return affine_of(t, x) if affine else x


def affine_of(t: Truth, x: Tensor) -> Tensor:
    """γ x + β."""
    if t.layer.name == "layer_norm":
        return scale(x, t.weight, t.bias)
    return scale(x, per_channel(t.weight, t.input), per_channel(t.bias, t.input))


def right_input(t: Truth, **changed: Tensor | None) -> Tensor:
    """dL/dx with another γ or dL/dy."""
    return t.gradient("input", **changed)


def hat(t: Truth) -> Tensor:
    """x̂."""
    return normalize(t, affine=False).detach()


def normalize_over(t: Truth, dims: Callable[[Truth], list[int]]) -> Tensor:
    """The layer with statistics over other dimensions."""
    chosen = dims(t)
    if not chosen or (t.layer.name == "batch_norm" and chosen == statistics(t, t.input).dims):
        raise NotApplicableError
    d = t.input - t.input.mean(chosen, keepdim=True)
    return affine_of(t, d / ((d * d).mean(chosen, keepdim=True) + t.eps).sqrt())


def of_input() -> Iterator[Mistake]:
    """dL/dx."""
    for sentence, constants in (
        ("The mean is taken for a constant.", {"constant_mean": True, "constant_center": True}),
        ("The variance is taken for a constant.", {"constant_variance": True}),
        ("The mean and the variance are taken for constants.", {"constant_mean": True, "constant_variance": True}),
        ("The mean is taken for a constant, but for its part in the variance.", {"constant_mean": True}),
    ):
        yield gradient("input", sentence, INPUT, lambda t, c=constants: t.gradients([normalize(t, **c)])["input.grad"])
    yield gradient("input", "γ is forgotten in dL/dx.", INPUT, lambda t: right_input(t, weight=None))
    yield gradient(
        "input",
        "γ is squared in dL/dx.",
        INPUT,
        lambda t: right_input(t, weight=t.weight * t.weight),
    )
    yield gradient(
        "input",
        "The variance is unbiased in dL/dx: over n − 1.",
        f"{INPUT} {VARIANCE}",
        lambda t: t.gradients([normalize(t, correction=1)])["input.grad"],
    )
    for sentence, value in (
        ("mean(h) is missing.", lambda h, x, m, r: (h - x * m(h * x)) / r),
        ("x̂ · mean(h · x̂) is missing.", lambda h, x, m, r: (h - m(h)) / r),
        ("The sign of x̂ · mean(h · x̂) is wrong.", lambda h, x, m, r: (h - m(h) + x * m(h * x)) / r),
        ("The sign of mean(h) is wrong.", lambda h, x, m, r: (h + m(h) - x * m(h * x)) / r),
        ("The means are sums: h − Σ h − x̂ · Σ h · x̂.", lambda h, x, m, r: (h - m(h, 1) - x * m(h * x, 1)) / r),
        ("mean(h · x̂) is over n − 1.", lambda h, x, m, r: (h - m(h) - x * m(h * x) * one_less(h, m)) / r),
        (
            "The means are over n − 1.",
            lambda h, x, m, r: (h - (m(h) + x * m(h * x)) * one_less(h, m)) / r,
        ),
        (
            "n is the batch alone, without the positions.",
            lambda h, x, m, r: (h - m(h, h.shape[0]) - x * m(h * x, h.shape[0])) / r,
        ),
        ("The factor x̂ before mean(h · x̂) is missing.", lambda h, x, m, r: (h - m(h) - m(h * x)) / r),
        ("The division by √(σ² + ε) is missing.", lambda h, x, m, r: h - m(h) - x * m(h * x)),
        ("Divided by σ² + ε, not by its root.", lambda h, x, m, r: (h - m(h) - x * m(h * x)) / r**2),
        ("Multiplied with √(σ² + ε), not divided by it.", lambda h, x, m, r: (h - m(h) - x * m(h * x)) * r),
        ("n is there once too often.", lambda h, x, m, r: (h - m(h) - x * m(h * x)) / r * (m(h * 0 + 1, 1))),
        ("1/n is there once too often.", lambda h, x, m, r: (h - m(h) - x * m(h * x)) / r / (m(h * 0 + 1, 1))),
    ):
        yield gradient("input", sentence, INPUT, lambda t, value=value: by_parts(t, value))


def one_less(h: Tensor, mean: Callable[..., Tensor]) -> Tensor:
    """n / (n − 1), and 1 for n = 1."""
    n = mean(torch.ones_like(h), 1)
    return n / (n - 1).clamp(min=1)


def by_parts(t: Truth, value: Callable[..., Tensor]) -> Tensor:
    """dL/dx from h, x̂, a mean and √(σ² + ε)."""
    weight = None if t.weight is None else t.weight.detach()
    h = scale(t.g, weight if t.layer.name == "layer_norm" else per_channel(weight, t.input), None)
    seen = statistics(t, t.input.detach())
    h, x = (part.reshape(seen.x.shape) for part in (h, hat(t)))
    d = seen.x - seen.x.mean(seen.dims, keepdim=True)
    r = root((d * d).mean(seen.dims, keepdim=True), t.eps)

    def mean(part: Tensor, count: int = 0) -> Tensor:
        return part.sum(seen.dims, keepdim=True) / (count or seen.count)

    return value(h, x, mean, r).reshape(t.input.shape)


def of_parameters() -> Iterator[Mistake]:
    """dL/dγ and dL/dβ."""
    for sentence, value in (
        ("dL/dγ takes the input x in place of x̂.", lambda t: t.input.detach()),
        ("dL/dγ takes the output y in place of x̂.", lambda t: t.y.detach()),
        ("dL/dγ takes x − mean in place of x̂.", lambda t: _centre(t)),
        ("dL/dγ is dL/dβ: x̂ is missing.", lambda t: torch.ones_like(t.input)),
        ("dL/dγ has γ as a factor.", lambda t: hat(t) * _weight(t)),
    ):
        yield gradient("weight", sentence, WEIGHT, lambda t, value=value: sum_per_parameter(t, t.g * value(t)))
    yield gradient(
        "weight",
        "x̂ is of the unbiased variance.",
        VARIANCE,
        lambda t: sum_per_parameter(t, t.g * normalize(t, correction=1, affine=False).detach()),
    )
    yield gradient("bias", "dL/dβ has γ as a factor.", WEIGHT, lambda t: sum_per_parameter(t, t.g * _weight(t)))
    yield gradient("bias", "dL/dβ has x̂ as a factor.", WEIGHT, lambda t: sum_per_parameter(t, t.g * hat(t)))


def _weight(t: Truth) -> Tensor:
    if t.weight is None:
        raise NotApplicableError
    weight: Tensor = t.weight.detach()
    return weight if t.layer.name == "layer_norm" else weight.view(-1, *[1] * (t.input.dim() - 2))


def _centre(t: Truth) -> Tensor:
    seen = statistics(t, t.input.detach())
    return (seen.x - seen.x.mean(seen.dims, keepdim=True)).reshape(t.input.shape)


def sum_per_parameter(t: Truth, x: Tensor) -> Tensor:
    """The sum over all that shares γ."""
    if t.layer.name == "layer_norm":
        leading = [*range(x.dim() - len(t.normalized_shape))]
        return x.sum(leading) if leading else x
    return x.sum([0, *range(2, x.dim())])


def deviation(variance: Tensor) -> Tensor:
    """√σ² with the gradient 0 where σ is 0, as torch.std has it."""
    is_zero = variance == 0
    return torch.where(is_zero, 0, torch.where(is_zero, 1, variance).sqrt())


def of_definition() -> Iterator[Mistake]:
    """Another y, with its gradients."""
    yield forward("The variance is unbiased: over n − 1.", VARIANCE, lambda t: normalize(t, correction=1))
    for sentence, changed in (
        ("ε is added to the deviation, not to the variance.", lambda v, eps: v.sqrt() + eps),
        ("ε is added to the deviation of torch.std, not to the variance.", lambda v, eps: deviation(v) + eps),
        ("ε is forgotten.", lambda v, eps: v.sqrt()),
        ("Divided by the variance, not by its root.", lambda v, eps: v + eps),
        ("ε is squared.", lambda v, eps: (v + eps * eps).sqrt()),
        ("Divided by √σ² only after the root: the root is missing.", lambda v, eps: v),
        ("Not divided by the deviation.", lambda v, eps: torch.ones_like(v)),
    ):
        yield forward(sentence, VARIANCE, lambda t, r=changed: normalize(t, of_root=r))
    for eps in (1e-5, 1e-6, 1e-3, 1e-8):
        yield forward(f"ε is always {eps:g}.", "ε is the argument eps.", lambda t, eps=eps: t.output(eps=eps))
    yield forward("γ is forgotten.", "y = γ x̂ + β.", lambda t: t.output(weight=None))
    yield forward("β is forgotten.", "y = γ x̂ + β.", lambda t: t.output(bias=None))
    yield forward("γ and β are exchanged.", "y = γ x̂ + β.", lambda t: t.output(weight=t.bias, bias=t.weight))
    yield forward("γ and β are forgotten.", "y = γ x̂ + β.", lambda t: t.output(weight=None, bias=None))
    yield forward("The mean is not subtracted.", "x̂ = (x − mean) / √(σ² + ε).", _without_mean)
    yield forward("1 + γ in place of γ.", "y = γ x̂ + β.", lambda t: t.output(weight=1 + t.weight))
    dims: tuple[tuple[str, Callable[[Truth], list[int]]], ...] = (
        ("over the batch alone", lambda t: [0]),
        ("over the positions of each sample alone", lambda t: [*range(2, t.input.dim())]),
        ("over channels and positions of each sample", lambda t: [*range(1, t.input.dim())]),
        ("over the channels alone", lambda t: [1]),
        ("over everything", lambda t: [*range(t.input.dim())]),
        ("over the last dimension alone", lambda t: [t.input.dim() - 1]),
        ("over batch and positions", lambda t: [0, *range(2, t.input.dim())]),
    )
    for name, chosen in dims:
        yield forward(
            f"The statistics are taken {name}.",
            "Each of the norms takes its statistics over its own dimensions.",
            lambda t, chosen=chosen: normalize_over(t, chosen),
        )


def _without_mean(t: Truth) -> Tensor:
    seen = statistics(t, t.input)
    d = seen.x - seen.x.mean(seen.dims, keepdim=True)
    return affine_of(t, (seen.x / root((d * d).mean(seen.dims, keepdim=True), t.eps)).reshape(t.input.shape))


def of_running() -> Iterator[Mistake]:
    """Batch norm's running statistics."""
    given = "In training the statistics are the batch's; in evaluation the running ones, which are constants."
    yield forward("The running statistics are used in training.", given, lambda t: t.output(training=False))
    yield forward("The batch's statistics are used in evaluation.", given, lambda t: t.output(training=True))
    yield gradient("input", "In evaluation dL/dx is training's.", given, lambda t: t.gradient("input", training=True))
    yield forward(
        "The running variance is taken for the deviation.",
        VARIANCE,
        lambda t: t.output(running_var=t.running_var * t.running_var),
    )


def interleave_groups(t: Truth) -> Tensor:
    """Group norm of groups whose channels lie num_groups apart."""
    x = t.input.unflatten(1, (-1, t.num_groups))
    dims = [1, *range(3, x.dim())]
    d = x - x.mean(dims, keepdim=True)
    return affine_of(t, (d / root((d * d).mean(dims, keepdim=True), t.eps)).flatten(1, 2))


NORM = (*of_input(), *of_parameters(), *of_definition())
GROUP_NORM = (
    *NORM,
    forward(
        "The groups are interleaved: of channels that lie num_groups apart.",
        "A group's channels are neighbours: input.view(N, groups, C / groups, …).",
        interleave_groups,
    ),
)
BATCH_NORM = (*NORM, *of_running())
