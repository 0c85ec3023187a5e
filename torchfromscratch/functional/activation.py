"""Activation functions: of a tensor of any shape, which they keep, and its type and memory format.

Those that torch.nn.functional returns contiguous whatever the input's format (rrelu, logsigmoid and
the softmax family) are contiguous here too: users call `.view` on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch.autograd import elementwise as table
from torchfromscratch.autograd import softmax as along
from torchfromscratch.functional.arguments import inexact, not_implemented, overwrite
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.execution import has_concrete_values, is_tracing
from torchfromscratch.kernels.precision import round_to, widen

__all__ = [
    "celu",
    "celu_",
    "elu",
    "elu_",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rrelu",
    "rrelu_",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "threshold_",
]

# The fixed point of mean 0 and variance 1: G. Klambauer et al., "Self-normalizing neural networks", 2017.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x), with dL/dx = dL/dy where x > 0 and 0 elsewhere.

    Source: lecture notes, "ReLU" and "Backward through ReLU".
    """
    _check_real("relu", input)
    # the derivative needs the output alone, but the one of a record's operations needs the input
    output = table.relu(input.clone() if inplace and is_tracing() else input)
    return overwrite(input, output) if inplace else output


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0 and a·x elsewhere, with dL/dx = dL/dy and a·dL/dy. Source: lecture notes, "Leaky ReLU"."""
    _check_floating("leaky_relu", input)
    return _apply(table.leaky_relu, input, negative_slope, inplace=inplace)


@autocast(cpu="lower", cuda="lower")
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0 and w·x elsewhere, with dL/dw = Σ x·dL/dy over the x ≤ 0 that w multiplies.

    Input (N, C, …); weight (C), or one for all. Raises RuntimeError if they do not fit or differ in type.
    """
    _check_floating("prelu", input)
    if input.dtype != weight.dtype:
        raise RuntimeError(f"input and weight must have the same type, but got {input.dtype} and {weight.dtype}")
    if weight.dim() > 1:
        raise RuntimeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.dim()}, of size "
            f"{list(weight.shape)}"
        )
    if weight.numel() == 1:
        return table.prelu(input, weight.reshape(()).expand(input.shape))
    channels = input.shape[1] if input.dim() > 1 else 1
    if weight.numel() != channels:
        found = f"Found parameter numbers = {weight.numel()} and channel size = {channels}"
        wrong = (
            "Mismatch of parameter numbers and input channel size" if input.dim() else "Not allow zero-dim input tensor"
        )
        raise RuntimeError(f"prelu: {wrong}. {found}. (input of shape {list(input.shape)})")
    return table.prelu(input, weight.reshape(-1, *[1] * (input.dim() - 2)).expand(input.shape))


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Leaky ReLU with a slope drawn from [lower, upper] for each element; the middle of it when not training.

    On a CPU the slopes are those that torch.nn.functional draws.

    Source: B. Xu et al., "Empirical evaluation of rectified activations in convolution network", 2015.
    """
    _check_floating("rrelu", input)
    if lower > upper:
        raise RuntimeError(f"Lower bound should be less than or equal to the upper bound, but got {lower} and {upper}")
    given = input if inplace else input.contiguous()
    if training:
        return _apply(table.prelu, given, _random_slopes(given.detach(), lower, upper), inplace=inplace)
    return _apply(table.leaky_relu, given, (lower + upper) / 2, inplace=inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6), with dL/dx = dL/dy between the two and 0 elsewhere."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but at least `min_val` and at most `max_val`, with dL/dx = dL/dy between the two and 0 elsewhere."""
    _check_real("hardtanh", input)
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, but got {min_val} and {max_val}")
    if input.dtype == torch.uint8 and min_val <= -1:
        raise RuntimeError(f"elements of {input.dtype} cannot be as low as min_val = {min_val}")
    return _apply(table.hardtanh, input, min_val, max_val, inplace=inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > `threshold` and `value` elsewhere, with dL/dx = dL/dy and 0."""
    _check_real("threshold", input)
    if inplace:
        _apply(table.threshold, _each_memory_once(input), threshold, value, inplace=True)
        return input
    return table.threshold(input, threshold, value)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > λ and 0 elsewhere, with dL/dx = dL/dy and 0."""
    _check_floating("hardshrink", input)
    return table.hardshrink(input, lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by λ, at most to 0, with dL/dx = dL/dy where |x| > λ and 0 elsewhere."""
    _check_floating("softshrink", input)
    if lambd < 0:
        raise RuntimeError(
            f"lambda must be in range [0, {torch.finfo(input.dtype).max}] for input dtype {input.dtype}, "
            f"but found {lambd}"
        )
    return table.softshrink(input, round_to(lambd, input.dtype))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """(x + 3)/6, but at least 0 and at most 1, with dL/dx = dL/dy / 6 between the two and 0 elsewhere."""
    _check_floating("hardsigmoid", input)
    return _apply(table.hardsigmoid, input, inplace=inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · hardsigmoid(x), with dL/dx = dL/dy · (x/3 + ½) for −3 < x < 3, dL/dy above and 0 below."""
    _check_floating("hardswish", input)
    return _apply(table.hardswish, input, inplace=inplace)


def sigmoid(input: Tensor) -> Tensor:
    """σ(x) = 1 / (1 + e⁻ˣ), with dL/dx = dL/dy · y · (1 − y)."""
    return table.sigmoid(inexact(input))


def tanh(input: Tensor) -> Tensor:
    """tanh x, with dL/dx = dL/dy · (1 − y²)."""
    return table.tanh(inexact(input))


def logsigmoid(input: Tensor) -> Tensor:
    """log σ(x), with dL/dx = dL/dy · σ(−x)."""
    _check_floating("logsigmoid", input)
    return table.logsigmoid(input.contiguous())


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · σ(x), with dL/dx = dL/dy · σ(x) · (1 + x · (1 − σ(x)))."""
    if not input.is_complex():
        _check_floating("silu", input)
    return _apply(table.silu, input, inplace=inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · t, t = tanh(log(1 + eˣ)), with dL/dx = dL/dy · (t + x · σ(x) · (1 − t²))."""
    _check_floating("mish", input)
    return _apply(table.mish, input, inplace=inplace)


@autocast(cpu="as given", cuda="float32")
def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + e^(βx)) / β, and x where βx > `threshold`, with dL/dx = dL/dy · σ(βx) and dL/dy."""
    _check_floating("softplus", input)
    return table.softplus(input, beta, threshold)


def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh x, with dL/dx = dL/dy · tanh² x."""
    if input.dtype == torch.bool:
        raise not_implemented("tanhshrink", input.dtype)
    return table.tanhshrink(inexact(input))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|), with dL/dx = dL/dy / (1 + |x|)², for real x."""
    if input.dtype == torch.bool:
        raise not_implemented("softsign", input.dtype)
    return table.softsign(inexact(input))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0 and α · (eˣ − 1) elsewhere, with dL/dx = dL/dy and dL/dy · α · eˣ.

    Source: D. Clevert et al., "Fast and accurate deep network learning by exponential linear units", 2015.
    """
    _check_floating("elu", input)
    return _apply(table.elu, input, alpha, 1, 1, inplace=inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """s · elu(x, α), with the s and α that keep mean 0 and variance 1."""
    _check_floating("selu", input)
    return _apply(table.elu, input, SELU_ALPHA, SELU_SCALE, 1, inplace=inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0 and α · (e^(x/α) − 1) elsewhere, with dL/dx = dL/dy and dL/dy · e^(x/α).

    Source: J. Barron, "Continuously differentiable exponential linear units", 2017.
    """
    _check_floating("celu", input)
    if alpha == 0:
        raise RuntimeError("alpha must not be 0, for celu divides by it")
    return _apply(table.elu, input, alpha, 1, 1 / alpha, inplace=inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x), Φ the normal distribution function, with dL/dx = dL/dy · (Φ(x) + x · φ(x)).

    "tanh" approximates Φ(x) by (1 + tanh u)/2, u = √(2/π) · (x + 0.044715 x³).
    Source: D. Hendrycks and K. Gimpel, "Gaussian error linear units", 2016.
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"approximate argument must be either none or tanh, but got {approximate!r}")
    _check_floating("gelu", input)
    return table.gelu(input) if approximate == "none" else table.gelu_tanh(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b), of the two halves a and b of the input along `dim`, with dL/da = dL/dy · σ(b).

    Raises RuntimeError if the dimension cannot be halved.
    """
    if input.dim() == 0:
        raise RuntimeError("glu needs a dimension that it can halve, but got a scalar")
    if input.shape[dim] % 2:
        raise RuntimeError(f"glu needs an even dimension, but dimension {dim} of {list(input.shape)} is odd")
    _check_floating("glu", input)
    return table.glu(*input.chunk(2, dim))


@autocast(cpu="as given", cuda="float32")
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """eˣ / Σ eˣ over `dim`, with dL/dx = y · (dL/dy − Σ y · dL/dy). `dtype` is cast to first.

    Source: lecture notes, "Softmax".
    """
    return _along_dim("softmax", along.softmax, input, dim, _stacklevel, dtype)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((x + G) / τ) with G = −log E, E exponentially distributed: a choice that gradients go through.

    `hard` gives 1 to the largest and 0 to the others, with the gradient of the softmax. `eps` has no effect.
    Source: E. Jang et al., "Categorical reparameterization with Gumbel-softmax", 2017.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=3)
    noise = -torch.empty_like(logits, memory_format=torch.legacy_contiguous_format).exponential_().log()
    y = softmax((logits + noise) / tau, dim)
    if not hard:
        return y
    largest = y.argmax(dim, keepdim=True)
    choice = torch.zeros_like(logits, memory_format=torch.legacy_contiguous_format).scatter(dim, largest, 1.0)
    return choice - y.detach() + y


@autocast(cpu="as given", cuda="float32")
def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """softmax(−x) over `dim`. `dtype` is cast to first."""
    if input.dtype == torch.bool:
        raise not_implemented("softmin", input.dtype)
    return _along_dim("softmin", along.softmax, -input, dim, _stacklevel, dtype)


@autocast(cpu="as given", cuda="float32")
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """log(eˣ / Σ eˣ) over `dim`, with dL/dx = dL/dy − eʸ · Σ dL/dy. `dtype` is cast to first."""
    return _along_dim("log_softmax", along.log_softmax, input, dim, _stacklevel, dtype)


# torch.nn.functional's names for these with inplace=True


def relu_(input: Tensor) -> Tensor:
    """`relu`, in the memory of its input."""
    return relu(input, inplace=True)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu`, in the memory of its input."""
    return leaky_relu(input, negative_slope, inplace=True)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """`rrelu`, in the memory of its input."""
    return rrelu(input, lower, upper, training, inplace=True)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh`, in the memory of its input."""
    return hardtanh(input, min_val, max_val, inplace=True)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold`, in the memory of its input."""
    _check_real("threshold", input)
    return _apply(table.threshold, input, threshold, value, inplace=True)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu`, in the memory of its input."""
    return elu(input, alpha, inplace=True)


def selu_(input: Tensor) -> Tensor:
    """`selu`, in the memory of its input."""
    return selu(input, inplace=True)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu`, in the memory of its input."""
    return celu(input, alpha, inplace=True)


def _along_dim(
    name: str,
    function: Callable[[Tensor, int], Tensor],
    input: Tensor,
    dim: int | None,
    stacklevel: int,
    dtype: torch.dtype | None,
) -> Tensor:
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1
        warnings.warn(f"{name} of an input without `dim` is deprecated: it takes dim={dim}", stacklevel=stacklevel + 2)
    if dtype is not None:
        input = input.to(dtype)
    _check_floating(name, input)
    if not -max(input.dim(), 1) <= dim < max(input.dim(), 1):
        raise IndexError(f"{name} has no dimension {dim} in an input of shape {list(input.shape)}")
    return function(input.contiguous(), dim)


def _apply(function: Callable[..., Tensor], input: Tensor, *rest: object, inplace: bool) -> Tensor:
    """The function's output, in the memory of the input if that is to be overwritten."""
    # the derivative needs what the input was
    return overwrite(input, function(input.clone(), *rest)) if inplace else function(input, *rest)


def _each_memory_once(input: Tensor) -> Tensor:
    """What of an expanded tensor is to be overwritten: torch refuses all of it, but not in its own threshold."""
    for dim, (size, stride) in enumerate(zip(input.shape, input.stride(), strict=True)):
        input = input.narrow(dim, 0, 1) if stride == 0 and size > 1 else input
    return input


def _random_slopes(input: Tensor, lower: float, upper: float) -> Tensor:
    """A slope for each element: on a CPU, as in torch, drawn as doubles, one after the other, for those ≤ 0 alone."""
    if input.device.type != "cpu" or not has_concrete_values(input):
        return torch.empty_like(input).uniform_(lower, upper)
    bounds = torch.tensor([lower, upper], dtype=widen(input.new_empty(0)).dtype).tolist()
    bent = input <= 0
    drawn = torch.empty(int(bent.sum()), dtype=torch.float64).uniform_(*bounds)
    return torch.ones_like(input).masked_scatter(bent, drawn.to(input.dtype))


def _check_floating(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise not_implemented(name, input.dtype)


def _check_real(name: str, input: Tensor) -> None:
    if input.dtype == torch.bool or input.is_complex():
        raise not_implemented(name, input.dtype)
