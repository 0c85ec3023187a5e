"""Activations: functions of one element (or of two that meet), as a table of values and derivatives.

A row reads: the name, y(x), and dx(g, x) = g · dy/dx. The same dx serves the way back, where g is dL/dy,
and the way forward, where it is the tangent of x. What dx names is what it is a function of, and what is kept
for it: arguments, or y. Where dx needs an activation again, as σ'(x) = σ(x) · (1 − σ(x)) does, it calls the
one of this table: no derivative of any order leaves it.

At a kink dx is what PyTorch documents or does; where a branch is flat it is 0 whatever g is, so an
infinite g from behind a dead unit stays there.

Source: lecture notes, "ReLU", "Leaky ReLU" and "Activation function"; the others at their rows.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.autograd.linear_map import linear_map
from torchfromscratch.kernels import gate as gate_kernels
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.blocking import compute_in_blocks
from torchfromscratch.kernels.precision import widen


def elementwise(
    name: str,
    value: Callable[..., Tensor],
    *,
    exact: bool = False,
    symmetric: bool = False,
    contiguous: bool = False,
    **derivatives: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """The Function value(*tensors, *constants), with a derivative for each tensor.

    Behind g, a derivative takes those of the value's arguments that it names, and the output by any other name.
    An `exact` function only selects among numbers that it is given; the others compute narrow floats in float32.
    Of complex numbers, a derivative is a product with one of them, or, `symmetric`, a symmetric map of pairs of
    reals. `contiguous` gradients lie so whatever the tensors do, as some of torch's.
    """
    count, names = len(derivatives), [*inspect.signature(value).parameters]
    taken = [[*inspect.signature(derivative).parameters][1:] for derivative in derivatives.values()]
    numbers = [[names.index(name) if name in names else len(names) for name in of_one] for of_one in taken]
    kept = [n for n in (*range(count), len(names)) if any([n in of_one for of_one in numbers])]
    known = [*kept, *range(count, len(names))]
    rules = [
        (f"{name}.{derivative}", formula, [known.index(n) for n in of_one])
        for (derivative, formula), of_one in zip(derivatives.items(), numbers, strict=True)
    ]

    def in_wide(name: str, formula: Callable[..., Tensor], first: Tensor, *rest: Any) -> Tensor:
        result = _by_triton(name, first, *rest)
        if result is not None:
            return result
        return formula(first, *rest) if exact else compute_in_blocks(_round_once, formula, first, *rest)

    def needed_for(gradients: Sequence[bool]) -> list[bool]:
        return [any([gradients[user] and n in numbers[user] for user in range(count)]) for n in kept]

    def conjugate(tensor: Tensor) -> Tensor:
        return tensor if symmetric else tensor.conj_physical()

    class Elementwise(Function):
        @staticmethod
        def forward(*args: Any) -> Tensor:
            return in_wide(name, value, *args)

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple:
            given = (*restore(ctx), *ctx.constants)
            g = conjugate(grad_output)
            gradients = [
                conjugate(in_wide(rule, formula, g, *[given[n] for n in takes])) if needs else None
                for (rule, formula, takes), needs in zip(rules, ctx.needs_input_grad[:count], strict=True)
            ]
            if contiguous:
                gradients = [None if gradient is None else gradient.contiguous() for gradient in gradients]
            return *gradients, *(None for _ in ctx.constants)

        # ---------------- torch's side: what is saved, vmap, forward mode

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            ctx.constants, given = inputs[count:], (*inputs, output)
            needed = None if count == 1 else needed_for(ctx.needs_input_grad)
            save(ctx, [given[n] for n in kept], needed)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Tensor:
            given = (*restore(ctx), *ctx.constants)
            moves = [
                in_wide(rule, formula, tangent, *[given[n] for n in takes])
                for (rule, formula, takes), tangent in zip(rules, tangents[:count], strict=True)
            ]
            return sum(moves[1:], moves[0])

    return differentiable(type(name, (Elementwise,), {}))


def _by_triton(name: str, *args: Any) -> Tensor | None:
    """The formula of this name in one launch, where there is a kernel for it and nobody differentiates the result."""
    kernels = triton.kernels("elementwise", *[arg for arg in args if isinstance(arg, Tensor)])
    return None if kernels is None else kernels.compute(name, *args)


def _round_once(formula: Callable[..., Tensor], first: Tensor, *rest: Any) -> Tensor:
    """The formula in float32 or wider, and then in the type of the first tensor."""
    wide = [widen(arg) if isinstance(arg, Tensor) else arg for arg in (first, *rest)]
    return formula(*wide).to(first.dtype)


gate = linear_map(
    "Gate",  # g where y > 0 or NaN, else 0: what ReLU with output y lets through
    gate_kernels.gate,
    saves=1,
)

# Piecewise linear

relu = elementwise(
    "ReLU",  # max(0, x)
    lambda x: x.clamp(min=0),
    dx=lambda g, y: gate(g, y),
    exact=True,
)
leaky_relu = elementwise(
    "LeakyReLU",
    lambda x, slope: torch.maximum(x, slope * x) if 0 < slope <= 1 else x.clamp(min=-0.0) + slope * x.clamp(max=0),
    dx=lambda g, x, slope: g * (x.sign().clamp(min=slope) if 0 < slope <= 1 else _one_or(slope, x)),
)
prelu = elementwise(
    "PReLU",  # K. He et al., "Delving deep into rectifiers", 2015
    lambda x, slope: x.clamp(min=-0.0) + slope * x.clamp(max=0),
    dx=lambda g, x, slope: g * _one_or(slope, x),
    dslope=lambda g, x: gate(g * x, (-x).clamp(min=0)),
)
hardtanh = elementwise(
    "Hardtanh",  # R. Collobert, "Large scale machine learning", 2004
    lambda x, low, high: x.clamp(low, high).to(x.dtype),
    dx=lambda g, x, low, high: compute_in_blocks(_gate_between, g, x, low, high),
    exact=True,
)
threshold = elementwise(
    "Threshold",
    lambda x, bound, value: compute_in_blocks(gate_kernels.replace_up_to, bound, x, value),
    dx=lambda g, x, bound: compute_in_blocks(_gate_above, g, x, bound),
    exact=True,
)
hardshrink = elementwise(
    "Hardshrink",
    lambda x, bound: compute_in_blocks(_gate_outside, x, x, bound),
    dx=lambda g, x, bound: compute_in_blocks(_gate_outside, g, x, bound),
    exact=True,
)
softshrink = elementwise(
    "Softshrink",
    lambda x, bound: (x - x.clamp(-bound, bound)).copysign(x),
    dx=lambda g, x, bound: _gate_outside(g, x, bound),
)
hardsigmoid = elementwise(
    "Hardsigmoid",  # M. Courbariaux et al., "BinaryConnect", 2015
    lambda x: (x + 3).clamp(0, 6) / 6,
    dx=lambda g, x: gate(g / 6, (3 - x.nan_to_num(3).abs()).clamp(min=0)),
)
hardswish = elementwise(
    "Hardswish",  # A. Howard et al., "Searching for MobileNetV3", 2019
    lambda x: x * (x + 3).clamp(0, 6) / 6,
    dx=lambda g, x: torch.where(x <= -3, 0, torch.where(x < 3, g * (x / 3 + 0.5), g)),
)

# Of the exponential

sigmoid = elementwise(
    "Sigmoid",  # σ(x) = 1 / (1 + e⁻ˣ)
    lambda x: x.sigmoid(),
    dx=lambda g, y: g * y * (1 - y),
)
tanh = elementwise(
    "Tanh",
    lambda x: x.tanh(),
    dx=lambda g, y: g * (1 - y * y),
)
glu = elementwise(
    "GLU",  # Y. Dauphin et al., "Language modeling with gated convolutional networks", 2017
    lambda a, b: a * b.sigmoid(),
    da=lambda g, b: g * sigmoid(b),
    db=lambda g, a, b: _glu_db(g * a, sigmoid(b)),
)
silu = elementwise(
    "SiLU",  # D. Hendrycks and K. Gimpel, "Gaussian error linear units", 2016
    lambda x: x * x.sigmoid(),
    dx=lambda g, x: _silu_dx(g, x, sigmoid(x)),
)
logsigmoid = elementwise(
    "LogSigmoid",  # log σ(x), with e⁻|ˣ|, which cannot overflow
    lambda x: x.clamp(max=0) - (-x.abs()).exp().log1p(),
    dx=lambda g, x: g * sigmoid(-x),
)
softplus = elementwise(
    "Softplus",  # log(1 + e^(βx)) / β, and x where βx is above the bound
    lambda x, beta, bound: torch.where(beta * x > bound, x, (beta * x).exp().log1p() / beta),
    dx=lambda g, x, beta, bound: torch.where(beta * x > bound, g, g * sigmoid(beta * x)),
)
mish = elementwise(
    "Mish",  # D. Misra, "Mish: a self regularized non-monotonic activation function", 2019
    lambda x: _mish(x, _mish_n(x)),
    dx=lambda g, x: _mish_dx(g, x, _mish_n(x)),
)
tanhshrink = elementwise(
    "Tanhshrink",
    lambda x: x - x.tanh(),
    dx=lambda g, x: g * tanh(x).square(),
)
elu = elementwise(
    "ELU",  # with α, and the scales of output and input that SELU and CELU have
    lambda x, alpha, scale, inner: scale * x.clamp(min=-0.0) + alpha * scale * (inner * x.clamp(max=0)).expm1(),
    dx=lambda g, x, alpha, scale, inner: g * _elu_slope(x.nan_to_num(1), alpha * scale * inner, scale, inner),
)

# Others

softsign = elementwise(
    "Softsign",
    lambda x: x / (1 + x.abs()),
    dx=lambda g, x: (g - x / (1 + x.abs()) * _abs_t(g, x)) / (1 + x.abs()),
    symmetric=True,
)
gelu = elementwise(
    "GELU",  # x · Φ(x), Φ the normal distribution function and φ its density
    lambda x: x * _normal_distribution(x),
    dx=lambda g, x: (
        g * torch.addcmul(_normal_distribution(x), x, (x * x * -0.5).exp(), value=1 / math.sqrt(2 * math.pi))
    ),
)
gelu_tanh = elementwise(
    "GELUTanh",  # Φ(x) approximated by ½ (1 + tanh u) = σ(2u)
    lambda x: x * (2 * _gelu_u(x)).sigmoid(),
    dx=lambda g, x: _gelu_tanh_dx(g, x, sigmoid(2 * _gelu_u(x))),
)


def _gate_above(g: Tensor, x: Tensor, bound: float) -> Tensor:
    return gate(g, _positive(widen(x) - bound, x.dtype))


def _gate_outside(g: Tensor, x: Tensor, bound: float) -> Tensor:
    return gate(g, (x.abs() - bound).clamp(min=0))


def _gate_between(g: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    wide = widen(x)
    return gate(g, _positive(torch.minimum(wide - low, high - wide), x.dtype))


def _positive(margin: Tensor, dtype: torch.dtype) -> Tensor:
    """The margin by which x passes a bound, or 0 where it does not, for a gate of numbers of this type.

    Narrow numbers are held against bounds of float32, as in torch. A margin that would round to 0 there becomes 1.
    """
    return margin.clamp(min=0) if margin.dtype == dtype else margin.clamp(0, 1).ceil().to(dtype)


def _abs_t(t: Tensor, x: Tensor) -> Tensor:
    """How |x| moves when x moves by t."""
    return (x.sgn().conj() * t).real if x.is_complex() else x.sgn() * t


def _one_or(slope: Tensor | float, x: Tensor) -> Tensor:
    """1 where x > 0 and the slope elsewhere: from the sign, for torch.where branches on each element in CPU memory."""
    positive = x.sign().clamp(min=0)
    return positive + slope * (1 - positive)


def _elu_slope(x: Tensor, left: float, right: float, inner: float) -> Tensor:
    """`right` where x > 0 and left · e^(inner · x) elsewhere."""
    positive = x.sign().clamp(min=0)
    return right * positive + left * (1 - positive) * (inner * x.clamp(max=0)).exp()


def _glu_db(ga: Tensor, s: Tensor) -> Tensor:
    """Of y = a · s, s = σ(b)."""
    return ga * s * (1 - s)


def _silu_dx(g: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """Of y = x · s, s = σ(x)."""
    return g * s * (1 + x * (1 - s))


def _mish_n(x: Tensor) -> Tensor:
    """eˣ · (eˣ + 2), with which tanh(log(1 + eˣ)) = n / (n + 2); that is 1 from x = 20 on, before n overflows."""
    exponential = x.clamp(max=20).exp()
    return exponential * (exponential + 2)


def _mish(x: Tensor, n: Tensor) -> Tensor:
    return x * (n / (n + 2))


def _mish_dx(g: Tensor, x: Tensor, n: Tensor) -> Tensor:
    """Of y = x · t, t = n / (n + 2), with dt/dx = σ(x) · (1 − t²) and 1 − t = 2 / (n + 2), which ends at 20."""
    t, below_one = n / (n + 2), (2 / (n + 2)).masked_fill(x >= 20, 0)
    return g * (t + x * sigmoid(x) * below_one * (1 + t))


def _normal_distribution(x: Tensor) -> Tensor:
    return (x * math.sqrt(0.5)).erf() * 0.5 + 0.5


def _gelu_u(x: Tensor) -> Tensor:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _gelu_tanh_dx(g: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """Of y = x · s, s = σ(2u)."""
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return g * (s + x * s * (1 - s) * 2 * du)
