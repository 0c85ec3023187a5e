"""Elementwise formulas: one launch for the value of a row of `autograd/elementwise`'s table, one for each derivative.

A formula is named as its row, and takes what the row's takes: a value its tensors and constants, a derivative g and
what it names, both as float32 or wider. `compute` walks over the elements as they lie in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, in_one_order, is_dense, launch, only_number, operation
from torchfromscratch.kernels.triton.mathematics import erf, exp, expm1, log, log1p, sigmoid, tanh, wide

# A program's elements. The interpreter takes as long for a program whatever its block.
BLOCK = 2**14 if IS_INTERPRETED else 1024

MOST_TENSORS = 4

# By the names of a row and, of a derivative, its own: "ReLU", "ReLU.dx".
FORMULAS: dict[str, Any] = {}


def gate(values: Tensor, output: Tensor) -> Tensor | None:
    """`values` where `output` is positive or NaN, and 0 elsewhere: dL/dx of y = max(0, x), from dL/dy and y."""
    return compute("Gate", values, output)


def compute(name: str, *args: Any) -> Tensor | None:
    """The formula of this name, of tensors of one shape or one element, then constants; None where it has no kernel."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    first, constants = tensors[0], args[len(tensors) :]
    if name not in FORMULAS or len(tensors) > MOST_TENSORS or first.numel() <= 1:
        return None
    if not all([isinstance(constant, (int, float)) for constant in constants]):
        return None
    tensors = [only_number(tensor) for tensor in tensors]
    varying = [tensor for tensor in tensors if tensor.dim() > 0]
    if not varying or not is_dense(varying[0]) or any([tensor.shape != first.shape for tensor in varying]):
        return None
    laid_out = iter(in_one_order(*varying))
    tensors = [next(laid_out) if tensor.dim() > 0 else tensor for tensor in tensors]
    return elementwise(name, tensors, [float(constant) for constant in constants])


def _empty(name: str, tensors: Sequence[Tensor], constants: Sequence[float]) -> Tensor:
    return torch.empty_like(next(tensor for tensor in tensors if tensor.dim() > 0), dtype=tensors[0].dtype)


@operation(like=_empty)
def elementwise(name: str, tensors: Sequence[Tensor], constants: Sequence[float]) -> Tensor:
    result = _empty(name, tensors, constants)
    is_one = tuple([tensor.dim() == 0 for tensor in tensors])
    given = [*tensors, *[None] * (MOST_TENSORS - len(tensors))]
    launch(
        elementwise_kernel,
        blocks_of(result.numel(), BLOCK),
        result,
        *given,
        result.numel(),
        formula=FORMULAS[name],
        constants=tuple(constants),
        is_one=is_one,
        block=BLOCK,
    )
    return result


@triton.jit
def elementwise_kernel(
    result,
    a,
    b,
    c,
    d,
    size,
    formula: tl.constexpr,
    constants: tl.constexpr,
    is_one: tl.constexpr,
    block: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    x = _load(a, at, inside, is_one[0])
    if len(is_one) == 1:
        y = _of_one(formula, constants, x)
    elif len(is_one) == 2:
        y = _of_two(formula, constants, x, _load(b, at, inside, is_one[1]))
    elif len(is_one) == 3:
        y = _of_three(formula, constants, x, _load(b, at, inside, is_one[1]), _load(c, at, inside, is_one[2]))
    else:
        z = _load(c, at, inside, is_one[2])
        y = formula(x, _load(b, at, inside, is_one[1]), z, _load(d, at, inside, is_one[3]))
    tl.store(result + at, y, mask=inside)


# Triton's compilers before 3.8 hand on no `*constants`, so each number of them is written out.


@triton.jit
def _of_one(formula: tl.constexpr, constants: tl.constexpr, x):
    if len(constants) == 0:
        result = formula(x)
    elif len(constants) == 1:
        result = formula(x, constants[0])
    elif len(constants) == 2:
        result = formula(x, constants[0], constants[1])
    else:
        result = formula(x, constants[0], constants[1], constants[2])
    return result


@triton.jit
def _of_two(formula: tl.constexpr, constants: tl.constexpr, x, y):
    if len(constants) == 0:
        result = formula(x, y)
    elif len(constants) == 1:
        result = formula(x, y, constants[0])
    elif len(constants) == 2:
        result = formula(x, y, constants[0], constants[1])
    else:
        result = formula(x, y, constants[0], constants[1], constants[2])
    return result


@triton.jit
def _of_three(formula: tl.constexpr, constants: tl.constexpr, x, y, z):
    return formula(x, y, z) if len(constants) == 0 else formula(x, y, z, constants[0])


@triton.jit
def _load(tensor, at, inside, is_one: tl.constexpr):
    x = tl.load(tensor) if is_one else tl.load(tensor + at, mask=inside, other=0)
    return wide(x)


def formula(name: str) -> Callable[[Any], Any]:
    """The formula of the table's row of this name, or of its derivative."""

    def decorate(function: Any) -> Any:
        FORMULAS[name] = function
        return function

    return decorate


# Piecewise linear


@formula("ReLU")
@triton.jit
def relu(x):
    return tl.where(x <= 0, 0, x)


@formula("Gate")
@triton.jit
def relu_dx(g, y):
    return tl.where(y <= 0, 0, g)


@formula("LeakyReLU")
@triton.jit
def leaky_relu(x, slope):
    return tl.where(x > 0, x, slope * x)


@formula("LeakyReLU.dx")
@triton.jit
def leaky_relu_dx(g, x, slope):
    return tl.where(x > 0, g, slope * g)


@formula("PReLU")
@triton.jit
def prelu(x, slope):
    return tl.where(x > 0, x, slope * x)


@formula("PReLU.dx")
@triton.jit
def prelu_dx(g, x, slope):
    return tl.where(x > 0, g, slope * g)


@formula("PReLU.dslope")
@triton.jit
def prelu_dslope(g, x):
    return tl.where(x >= 0, 0, g * x)


@formula("Hardtanh")
@triton.jit
def hardtanh(x, low, high):
    raised = tl.where(x < low, low, x)
    return tl.where(raised > high, high, raised)


@formula("Hardtanh.dx")
@triton.jit
def hardtanh_dx(g, x, low, high):
    return tl.where((x <= low) | (x >= high), 0, g)


@formula("Threshold")
@triton.jit
def threshold(x, bound, value):
    return tl.where(x <= bound, value, x)


@formula("Threshold.dx")
@triton.jit
def threshold_dx(g, x, bound):
    return tl.where(x <= bound, 0, g)


@formula("Hardshrink")
@triton.jit
def hardshrink(x, bound):
    return tl.where(tl.abs(x) <= bound, 0, x)


@formula("Hardshrink.dx")
@triton.jit
def hardshrink_dx(g, x, bound):
    return tl.where(tl.abs(x) <= bound, 0, g)


@formula("Softshrink")
@triton.jit
def softshrink(x, bound):
    return tl.where(x > bound, x - bound, tl.where(x < -bound, x + bound, 0 * x))


@formula("Softshrink.dx")
@triton.jit
def softshrink_dx(g, x, bound):
    return tl.where(tl.abs(x) <= bound, 0, g)


@formula("Hardsigmoid")
@triton.jit
def hardsigmoid(x):
    return hardtanh(x + 3, 0.0, 6.0) / 6


@formula("Hardsigmoid.dx")
@triton.jit
def hardsigmoid_dx(g, x):
    return tl.where((x > -3) & (x < 3), g / 6, 0)


@formula("Hardswish")
@triton.jit
def hardswish(x):
    return x * hardtanh(x + 3, 0.0, 6.0) / 6


@formula("Hardswish.dx")
@triton.jit
def hardswish_dx(g, x):
    return tl.where(x <= -3, 0, tl.where(x < 3, g * (x / 3 + 0.5), g))


@formula("Drop")
@triton.jit
def drop(x, m, q):
    return x * m * (1 / q)


# Of the exponential


@formula("Sigmoid")
@triton.jit
def sigmoid_of(x):
    return sigmoid(x)


@formula("Sigmoid.dx")
@triton.jit
def sigmoid_dx(g, y):
    return g * y * (1 - y)


@formula("Tanh")
@triton.jit
def tanh_of(x):
    return tanh(x)


@formula("Tanh.dx")
@triton.jit
def tanh_dx(g, y):
    return g * (1 - y * y)


@formula("GLU")
@triton.jit
def glu(a, b):
    return a * sigmoid(b)


@formula("GLU.da")
@triton.jit
def glu_da(g, b):
    return g * sigmoid(b)


@formula("GLU.db")
@triton.jit
def glu_db(g, a, b):
    s = sigmoid(b)
    return g * a * s * (1 - s)


@formula("SiLU")
@triton.jit
def silu(x):
    return x * sigmoid(x)


@formula("SiLU.dx")
@triton.jit
def silu_dx(g, x):
    s = sigmoid(x)
    return g * s * (1 + x * (1 - s))


@formula("LogSigmoid")
@triton.jit
def logsigmoid(x):
    return tl.minimum(x, 0) - log1p(exp(-tl.abs(x)))


@formula("LogSigmoid.dx")
@triton.jit
def logsigmoid_dx(g, x):
    return g * sigmoid(-x)


@formula("Softplus")
@triton.jit
def softplus(x, beta, bound):
    return tl.where(beta * x > bound, x, log1p(exp(beta * x)) / beta)


@formula("Softplus.dx")
@triton.jit
def softplus_dx(g, x, beta, bound):
    return tl.where(beta * x > bound, g, g * sigmoid(beta * x))


@triton.jit
def mish_n(x):
    """eˣ · (eˣ + 2), with which tanh(log(1 + eˣ)) = n / (n + 2)."""
    exponential = exp(tl.minimum(x, 20))
    return exponential * (exponential + 2)


@formula("Mish")
@triton.jit
def mish(x):
    n = mish_n(x)
    return x * (n / (n + 2))


@formula("Mish.dx")
@triton.jit
def mish_dx(g, x):
    n = mish_n(x)
    t = n / (n + 2)
    below_one = tl.where(x >= 20, 0, 2 / (n + 2))
    return g * (t + x * sigmoid(x) * below_one * (1 + t))


@formula("Tanhshrink")
@triton.jit
def tanhshrink(x):
    return x - tanh(x)


@formula("Tanhshrink.dx")
@triton.jit
def tanhshrink_dx(g, x):
    t = tanh(x)
    return g * (t * t)


@formula("ELU")
@triton.jit
def elu(x, alpha, scale, inner):
    return tl.where(x <= 0, alpha * scale * expm1(inner * tl.minimum(x, 0)), scale * x)


@formula("ELU.dx")
@triton.jit
def elu_dx(g, x, alpha, scale, inner):
    return g * tl.where(x <= 0, alpha * scale * inner * exp(inner * tl.minimum(x, 0)), scale)


# Others


@formula("Softsign")
@triton.jit
def softsign(x):
    return x / (1 + tl.abs(x))


@formula("Softsign.dx")
@triton.jit
def softsign_dx(g, x):
    return g * (1 - tl.abs(x) / (1 + tl.abs(x))) / (1 + tl.abs(x))


SQRT_HALF = tl.constexpr(math.sqrt(0.5))
DENSITY_AT_0 = tl.constexpr(1 / math.sqrt(2 * math.pi))
TWO_SQRT_2_OVER_PI = tl.constexpr(2 * math.sqrt(2 / math.pi))
CUBIC = tl.constexpr(0.044715)
THREE_CUBIC = tl.constexpr(3 * 0.044715)


@triton.jit
def normal_distribution(x):
    return 0.5 * erf(x * SQRT_HALF) + 0.5


@formula("GELU")
@triton.jit
def gelu(x):
    return x * normal_distribution(x)


@formula("GELU.dx")
@triton.jit
def gelu_dx(g, x):
    return g * (normal_distribution(x) + x * exp(-0.5 * x * x) * DENSITY_AT_0)


@triton.jit
def gelu_2u(x):
    return (x + x * x * x * CUBIC) * TWO_SQRT_2_OVER_PI


@formula("GELUTanh")
@triton.jit
def gelu_tanh(x):
    return x * sigmoid(gelu_2u(x))


@formula("GELUTanh.dx")
@triton.jit
def gelu_tanh_dx(g, x):
    s = sigmoid(gelu_2u(x))
    slope = (1 + x * x * THREE_CUBIC) * TWO_SQRT_2_OVER_PI
    return g * (s + x * s * (1 - s) * slope)


# Losses of an element, or of a pair


@formula("SquaredError")
@triton.jit
def squared_error(x, y):
    return (x - y) * (x - y)


@formula("SquaredError.dx")
@triton.jit
def squared_error_dx(g, x, y):
    return 2 * g * (x - y)


@formula("SquaredError.dy")
@triton.jit
def squared_error_dy(g, x, y):
    return 2 * g * (y - x)


@formula("Square")
@triton.jit
def square(d):
    return d * d


@formula("Square.dd")
@triton.jit
def square_dd(g, d):
    return 2 * g * d


@formula("Absolute")
@triton.jit
def absolute(d):
    return tl.abs(d)


@formula("Absolute.dd")
@triton.jit
def absolute_dd(g, d):
    return g * sign(d)


@triton.jit
def sign(x):
    return tl.where(x > 0, 1, tl.where(x < 0, -1, 0))


@triton.jit
def clamp(x, low, high):
    raised = tl.where(x < low, low, x)
    return tl.where(raised > high, high, raised)


@formula("SmoothError")
@triton.jit
def smooth_error(x, y, beta):
    d = tl.abs(x - y)
    within = tl.where(d > beta, beta, d)
    return within / beta * (d - within / 2)


@formula("SmoothError.dx")
@triton.jit
def smooth_error_dx(g, x, y, beta):
    return g * clamp((x - y) / beta, -1.0, 1.0)


@formula("SmoothError.dy")
@triton.jit
def smooth_error_dy(g, x, y, beta):
    return g * clamp((y - x) / beta, -1.0, 1.0)


@formula("HuberError")
@triton.jit
def huber_error(x, y, delta):
    d = tl.abs(x - y)
    within = tl.where(d > delta, delta, d)
    return within * (d - within / 2)


@formula("HuberError.dx")
@triton.jit
def huber_error_dx(g, x, y, delta):
    return g * clamp(x - y, -delta, delta)


@formula("HuberError.dy")
@triton.jit
def huber_error_dy(g, x, y, delta):
    return g * clamp(y - x, -delta, delta)


@formula("BinaryCrossEntropy")
@triton.jit
def binary_cross_entropy(x, y):
    log_x, log_rest = log(x), log1p(-x)
    return (y - 1) * tl.where(log_rest < -100, -100, log_rest) - y * tl.where(log_x < -100, -100, log_x)


@formula("BinaryCrossEntropy.dx")
@triton.jit
def binary_cross_entropy_dx(g, x, y):
    variance = x * (1 - x)
    return g * (x - y) / tl.where(variance < 1e-12, 1e-12, variance)


@formula("BinaryCrossEntropy.dy")
@triton.jit
def binary_cross_entropy_dy(g, x):
    return g * (log1p(-x) - log(x))


@formula("SigmoidCrossEntropy")
@triton.jit
def sigmoid_cross_entropy(z, y):
    return (1 - y) * z - logsigmoid(z)


@formula("SigmoidCrossEntropy.dz")
@triton.jit
def sigmoid_cross_entropy_dz(g, z, y):
    return (sigmoid(z) - y) * g


@formula("SigmoidCrossEntropy.dy")
@triton.jit
def sigmoid_cross_entropy_dy(g, z):
    return -g * z


@formula("WeightedSigmoidCrossEntropy")
@triton.jit
def weighted_sigmoid_cross_entropy(z, y, p):
    return (1 - y) * z - (1 + (p - 1) * y) * logsigmoid(z)


@formula("WeightedSigmoidCrossEntropy.dz")
@triton.jit
def weighted_sigmoid_cross_entropy_dz(g, z, y, p):
    return (sigmoid(z) * (p * y + 1 - y) - p * y) * g


@formula("WeightedSigmoidCrossEntropy.dy")
@triton.jit
def weighted_sigmoid_cross_entropy_dy(g, z, p):
    return g * (logsigmoid(-z) - p * logsigmoid(z))


@formula("WeightedSigmoidCrossEntropy.dp")
@triton.jit
def weighted_sigmoid_cross_entropy_dp(g, z, y):
    return -g * y * logsigmoid(z)


@formula("Divergence")
@triton.jit
def divergence(x, y):
    return tl.where(y == 0, 0, y * log(y)) - y * x


@formula("Divergence.dx")
@triton.jit
def divergence_dx(g, y):
    return -g * y


@formula("Divergence.dy")
@triton.jit
def divergence_dy(g, x, y):
    return g * (log(y) + 1 - x)


@formula("LogDivergence")
@triton.jit
def log_divergence(x, y):
    return exp(y) * (y - x)


@formula("LogDivergence.dx")
@triton.jit
def log_divergence_dx(g, y):
    return -g * exp(y)


@formula("LogDivergence.dy")
@triton.jit
def log_divergence_dy(g, x, y):
    return g * exp(y) * (y - x + 1)


@formula("GaussianNLL")
@triton.jit
def gaussian_nll(d, v):
    return 0.5 * (log(v) + d * d / v)


@formula("GaussianNLL.dd")
@triton.jit
def gaussian_nll_dd(g, d, v):
    return g * d / v


@formula("GaussianNLL.dv")
@triton.jit
def gaussian_nll_dv(g, d, v):
    return 0.5 * g * (1 - d * d / v) / v


@formula("PoissonNLL")
@triton.jit
def poisson_nll(x, y, eps):
    return x - y * log(x + eps)


@formula("PoissonNLL.dx")
@triton.jit
def poisson_nll_dx(g, x, y, eps):
    return g * (1 - y / (x + eps))


@formula("PoissonNLL.dy")
@triton.jit
def poisson_nll_dy(g, x, eps):
    return -g * log(x + eps)


@formula("LogPoissonNLL")
@triton.jit
def log_poisson_nll(x, y):
    return exp(x) - y * x


@formula("LogPoissonNLL.dx")
@triton.jit
def log_poisson_nll_dx(g, x, y):
    return g * (exp(x) - y)


@formula("LogPoissonNLL.dy")
@triton.jit
def log_poisson_nll_dy(g, x):
    return -g * x


TWO_PI = tl.constexpr(2 * math.pi)


@formula("Stirling")
@triton.jit
def stirling(y):
    return tl.where(y <= 1, 0, y * log(y) - y + 0.5 * log(y * TWO_PI))


@formula("Stirling.dy")
@triton.jit
def stirling_dy(g, y):
    return tl.where(y <= 1, 0, g * (log(y) + 0.5 / y))


# Of margin losses


@formula("Hinge")
@triton.jit
def hinge(z):
    return tl.where(z < 0, 0, z)


@formula("Hinge.dz")
@triton.jit
def hinge_dz(g, z):
    return tl.where(z <= 0, 0, g)


@formula("SquaredHinge")
@triton.jit
def squared_hinge(z):
    return hinge(z) * hinge(z)


@formula("SquaredHinge.dz")
@triton.jit
def squared_hinge_dz(g, z):
    return 2 * g * hinge(z)


@formula("Smaller")
@triton.jit
def smaller(a, b):
    return tl.where((a < b) | (a != a), a, b)


@formula("Smaller.da")
@triton.jit
def smaller_da(g, a, b):
    return g * (0.5 - 0.5 * sign(a - b))


@formula("Smaller.db")
@triton.jit
def smaller_db(g, a, b):
    return g * (0.5 - 0.5 * sign(b - a))


@formula("SoftMargin")
@triton.jit
def soft_margin(x, y):
    return -logsigmoid(x * y)


@formula("SoftMargin.dx")
@triton.jit
def soft_margin_dx(g, x, y):
    return -g * y * sigmoid(-x * y)


@formula("SoftMargin.dy")
@triton.jit
def soft_margin_dy(g, x, y):
    return -g * x * sigmoid(-x * y)
