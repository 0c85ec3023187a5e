"""Loss functions."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch.autograd import loss as table
from torchfromscratch.autograd.distance import at_least
from torchfromscratch.functional.arguments import inexact, scalar_type
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.functional.reduction import REDUCTIONS, choose_reduction, reduce_losses
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import has_concrete_values, is_autocasting, needs_gradient
from torchfromscratch.kernels.precision import widen

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
]

# Of float32's numbers above 0, in which narrower types are computed as well: what is no more rounds to 0.
HALF_OF_LEAST = 2.0**-150


@autocast(cpu="float32", cuda="float32")
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−Σ_c Y_c · log softmax(z)_c, of a target distribution Y and logits z, with dL/dz = softmax(z) · ΣY − Y.

    Y is one class, or, if the target has the input's shape, a probability for each class; either is
    multiplied by the weight of the class. `label_smoothing` ε makes it (1 − ε) · Y + ε/C. "mean" divides
    by the summed weight of the targets, without those equal to `ignore_index`; for probabilities, by
    their number.

    Input (C), (N, C) or (N, C, d1, …); target the same without C, or the same. Raises IndexError for a
    class out of range, ValueError and RuntimeError for shapes and types that do not fit. Source: lecture
    notes, "Categorical cross-entropy loss"; C. Szegedy et al., "Rethinking the Inception architecture", 2016.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    _check_floating("cross_entropy", input.dtype)
    if label_smoothing > 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0, got {label_smoothing}")
    smoothing = max(label_smoothing, 0.0)
    if input.shape == target.shape:
        if ignore_index >= 0 and target.is_floating_point():
            raise RuntimeError(
                f"ignore_index is not supported for floating point target, but got ignore_index={ignore_index}"
            )
        return _cross_entropy_of_probabilities(input, target, weight, reduction, smoothing)
    dim = _class_dim(input)
    t = _class_target(input, target, weight)
    losses, _ = table.softmax_cross_entropy(input, t, weight, None, dim, 1 - smoothing, ignore_index, smoothing)
    return _reduce_over_classes(losses, reduction, t, weight, ignore_index, dim).to(input.dtype)


@autocast(cpu="float32", cuda="float32")
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−w_t · x_t, of log-probabilities x and a class t of weight w_t, with dL/dx = −w_t at t and 0 elsewhere.

    Shapes, weights, `ignore_index`, "mean" and errors are those of `cross_entropy` of a class.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    _check_floating("nll_loss", input.dtype)
    dim = _class_dim(input)
    t = _class_target(input, target, weight)
    losses = table.negative_log_likelihood(input, t, weight, dim, ignore_index)
    return _reduce_over_classes(losses, reduction, t, weight, ignore_index, dim).to(input.dtype)


@autocast(cpu="as given", cuda="float32")
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(x − y)², with dL/dx = 2 (x − y). "mean" divides by the sum of the weights, if there are any.

    Input and target of one shape (others are broadcast, with a warning); weight of the input's.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    _warn_of_broadcasting("mse_loss", input, target)
    if weight is None:
        return _reduce_unweighted("mse_loss", table.squared_error, input, target, reduction=reduction)
    return _reduce_weighted("mse_loss", table.square, input, target, weight, reduction)


@autocast(cpu="as given", cuda="float32")
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|x − y|, with dL/dx = sgn(x − y); of complex numbers too. Shapes, weights and "mean" are those of `mse_loss`."""
    reduction = choose_reduction(reduction, size_average, reduce)
    _warn_of_broadcasting("l1_loss", input, target)
    if weight is None:
        return _reduce_unweighted("l1_loss", table.absolute, input, target, reduction=reduction)
    return _reduce_weighted("l1_loss", table.absolute, input, target, weight, reduction)


@autocast(cpu="float32", cuda="float32")
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d²/(2β) where d = |x − y| < β and d − β/2 elsewhere, with dL/dx = (x − y)/β within ±1.

    Shapes are those of `mse_loss`. Raises RuntimeError if β < 0; with β = 0, or what is that in the type
    of the input, it is `l1_loss`.
    Source: R. Girshick, "Fast R-CNN", 2015.
    """
    if beta < 0:
        raise RuntimeError(f"beta must be at least 0, but got {beta}")
    if beta <= (0 if torch.float64 in (input.dtype, target.dtype) else HALF_OF_LEAST):
        return l1_loss(input, target, size_average, reduce, reduction)
    reduction = choose_reduction(reduction, size_average, reduce)
    _warn_of_broadcasting("smooth_l1_loss", input, target)
    return _reduce_unweighted("smooth_l1_loss", table.smooth_error, input, target, beta, reduction=reduction)


@autocast(cpu="float32", cuda="float32")
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """d²/2 where d = |x − y| ≤ δ and δ·(d − δ/2) elsewhere, with dL/dx = x − y within ±δ.

    Shapes are those of `mse_loss`; "mean" divides by the number of elements. Raises RuntimeError if δ ≤ 0.
    Source: P. Huber, "Robust estimation of a location parameter", 1964.
    """
    reduction = choose_reduction(reduction)
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, but got {delta}")
    _warn_of_broadcasting("huber_loss", input, target)
    if target.is_complex() and not input.is_complex():
        raise RuntimeError(f"huber_loss returns the input's type, {input.dtype}, but got a target of {target.dtype}")
    losses, _ = _errors("huber_loss", table.huber_error, input, target, delta)
    if not input.is_floating_point():
        raise RuntimeError(f"huber_loss returns the input's type, which cannot be {input.dtype}")
    if weight is None:
        return reduce_losses(losses, reduction).to(input.dtype)
    losses = losses * _check_weight(weight, input)
    return reduce_losses(losses, reduction).to(torch.promote_types(input.dtype, weight.dtype))


@autocast(cpu="float32", cuda="as given")
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−y log x − (1 − y) log(1 − x) of probabilities, with dL/dx = (x − y) / (x (1 − x)).

    The logarithms are at least −100 and the denominator at least 10⁻¹². Input and target of one shape, weight
    of one that broadcasts to it. Raises ValueError for shapes that differ, and RuntimeError for elements
    outside of [0, 1] (on the CPU), for types that differ, and in autocast on CUDA, as torch does.
    Source: lecture notes, "Binary cross-entropy loss".
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    _check_same_shape("binary_cross_entropy", input, target)
    if input.dtype != target.dtype:
        raise RuntimeError(f"input and target must have the same type, but got {input.dtype} and {target.dtype}")
    _check_floating("binary_cross_entropy", input.dtype)
    if input.is_cuda and is_autocasting("cuda"):
        raise RuntimeError(
            "binary_cross_entropy is unsafe in autocast: small probabilities round to 0; "
            "use binary_cross_entropy_with_logits, without a sigmoid before it"
        )
    _check_probabilities("input", input)
    _check_probabilities("target", target)
    losses = table.binary_cross_entropy(widen(input), widen(target))
    if weight is not None:
        losses = losses * widen(weight).expand(input.shape)
    return reduce_losses(losses, reduction).to(input.dtype)


@autocast(cpu="float32", cuda="float32")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """−p·y·log σ(z) − (1 − y)·log(1 − σ(z)), with dL/dz = σ(z) − y where the weight p of positives is 1.

    In general dL/dz = (p·y + 1 − y)·σ(z) − p·y. Input and target of one shape, weights of one that broadcasts to
    it; the result has the target's type. Raises ValueError for shapes that differ. Source: lecture notes,
    "Binary cross-entropy loss".
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    _check_same_shape("binary_cross_entropy_with_logits", input, target)
    _check_floating("binary_cross_entropy_with_logits", input.dtype)
    if target.dtype == torch.bool:
        raise NotImplementedError("a boolean target cannot be subtracted; turn it into the input's type first")
    if not target.is_floating_point():
        raise RuntimeError(f"the target must be floating-point, but got {target.dtype}")
    dtype = torch.promote_types(input.dtype, target.dtype)
    z, y = widen(input.to(dtype)), widen(target.to(dtype))
    if pos_weight is None:
        losses = table.sigmoid_cross_entropy(z, y)
    else:
        losses = table.weighted_sigmoid_cross_entropy(z, y, widen(pos_weight).expand(input.shape))
    if weight is not None:
        losses = losses * widen(weight).expand(input.shape)
    return reduce_losses(losses, reduction).to(target.dtype)


@autocast(cpu="float32", cuda="float32")
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """y·(log y − x), of log-probabilities x and probabilities y (`log_target`: their logarithms).

    dL/dx = −y. "batchmean" divides the sum by the length of the first dimension, which is the
    divergence's definition; "mean" by the number of elements. Raises RuntimeError for integers.
    """
    batchmean = reduction == "batchmean"
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn('"mean" divides by the number of elements; the divergence is "batchmean"', stacklevel=4)
    reduction = choose_reduction("sum" if batchmean else reduction, size_average, reduce)
    for tensor in (input, target):
        if not tensor.is_floating_point():
            raise RuntimeError(f"kl_div needs floating-point tensors, but got {tensor.dtype}")
    function = table.log_divergence if log_target else table.divergence
    losses, dtype = _errors("kl_div", function, input, target)
    divergence = reduce_losses(losses, reduction)
    if batchmean and input.dim():
        divergence = divergence / input.shape[0]
    return divergence.to(dtype)


@autocast(cpu="as given", cuda="float32")
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """½ (log v + (x − y)² / v), with dL/dx = (x − y) / v and dL/dv = ½ (1 − (x − y)² / v) / v; `full`: + ½ log 2π.

    A variance v below `eps` counts as that, and is sent the gradient there. v has the input's shape, or one
    dimension of 1 instead, or lacks the last one, or is a float. Raises ValueError for another shape, and for a
    negative variance where its elements can be looked at.
    Source: D. Nix and A. Weigend, "Estimating the mean and variance of the target probability distribution", 1994.
    """
    if not isinstance(var, Tensor):
        var = torch.full_like(input, var)
    if has_concrete_values(var) and (var < 0).any():
        raise ValueError("var has negative entry/entries: a variance is 0 or more")
    var = _variance_of_each(var, input)
    if reduction not in REDUCTIONS:
        raise ValueError(f'{reduction} is not valid: reduction must be "none", "mean" or "sum"')
    (difference, v), dtype = in_common_type(input - target, at_least(var, eps))
    losses = table.gaussian_nll(difference, v)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduce_losses(losses, reduction).to(dtype)


@autocast(cpu="float32", cuda="float32")
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """eˣ − y·x of counts y and log-rates x, with dL/dx = eˣ − y; of rates x, x − y·log(x + ε) with 1 − y / (x + ε).

    `full` adds Stirling's approximation of log y!, y·log y − y + ½ log 2πy, for counts above 1. Shapes are broadcast.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    (y, x), dtype = in_common_type(target, inexact(input))  # as its exponential and its logarithm are
    losses = table.log_poisson_nll(x, y) if log_input else table.poisson_nll(x, y, eps)
    if full:
        losses = losses + table.stirling(y)
    return reduce_losses(losses, reduction).to(dtype)


def in_common_type(*tensors: Tensor) -> tuple[list[Tensor], torch.dtype]:
    """The tensors in one shape and the floating-point type that all promote to, widened; and that type.

    Raises NotImplementedError for complex numbers.
    """
    dtype = functools.reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    if dtype.is_complex:
        raise NotImplementedError(f"this loss is one of real numbers, but got {dtype}")
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    return list(torch.broadcast_tensors(*[widen(tensor.to(dtype)) for tensor in tensors])), dtype


def _variance_of_each(var: Tensor, input: Tensor) -> Tensor:
    """The variances of the elements of the input, in a shape that broadcasts to its."""
    if var.shape == input.shape:
        return var
    if var.shape == input.shape[:-1]:
        return var.unsqueeze(-1)
    has_dims = var.dim() == input.dim()
    if has_dims and sum([of_var for of_var, size in zip(var.shape, input.shape, strict=True) if of_var != size]) == 1:
        return var
    raise ValueError(
        f"var is of incorrect size: it needs the input's {list(input.shape)}, the same with one dimension of 1, "
        f"or the same without the last, but got {list(var.shape)}"
    )


def _cross_entropy_of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    if not target.is_floating_point():
        raise RuntimeError(f"Expected floating point type for target with class probabilities, got {target.dtype}")
    dtype = torch.promote_types(input.dtype, target.dtype)
    dim = _class_dim(input)
    target = widen(target)
    density = (1 - smoothing) * target + target.new_full((), smoothing) / input.shape[dim]
    if weight is not None:
        dtype = torch.promote_types(dtype, weight.dtype)
        density = density * widen(_along_classes(weight, input))
    losses, _ = table.softmax_cross_entropy(input, None, None, density, dim, 0, 0, 0)
    return reduce_losses(losses.squeeze(dim), reduction).to(dtype)


def _class_target(input: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Classes (N, 1, …), which the weights fit."""
    dim = _class_dim(input)
    expected = [*input.shape[:dim], *input.shape[dim + 1 :]]
    if dim == 0:
        if target.dim() == 1 and target.shape[0] == 1:
            target = target.squeeze(0)
        if target.dim() == 1:
            raise ValueError(f"an input without a batch has one target, but got {target.shape[0]}")
    elif target.dim() == 0 or target.shape[0] != input.shape[0]:
        raise ValueError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
            f"({target.shape[0] if target.dim() else 'none'}): got shapes {list(input.shape)} and {list(target.shape)}"
        )
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {target.dtype}")
    if list(target.shape) != expected:
        raise RuntimeError(f"Expected target size {expected}, got {list(target.shape)}")
    if weight is not None:
        _along_classes(weight, input)
        if weight.dtype != input.dtype:
            raise RuntimeError(
                f"weight: expected scalar type {scalar_type(input.dtype)} but found {scalar_type(weight.dtype)}"
            )
        if needs_gradient(weight):
            raise RuntimeError(
                "target classes have weights that a loss is not differentiable by, but got one that "
                "requires a gradient; detach() it"
            )
    return target.long().unsqueeze(dim)


def _reduce_over_classes(
    losses: Tensor, reduction: str, t: Tensor, weight: Tensor | None, ignore_index: int, dim: int
) -> Tensor:
    """The losses, whose mean is divided by the summed weights of the targets, without those that are ignored."""
    losses = no_view(losses, (*losses.shape[:dim], *losses.shape[dim + 1 :]))
    total = table.total_weight(t, weight, ignore_index) if reduction == "mean" else None
    return reduce_losses(losses, reduction, total)


def _class_dim(input: Tensor) -> int:
    if input.dim() == 0:
        raise ValueError("expected an input of shape (C), (N, C) or (N, C, d1, …), but got a scalar")
    return 0 if input.dim() == 1 else 1


def _along_classes(weight: Tensor, input: Tensor) -> Tensor:
    """The weights of the classes, shaped to multiply the input."""
    dim = _class_dim(input)
    if weight.dim() != 1 or weight.shape[0] != input.shape[dim]:
        raise RuntimeError(
            f"weight tensor should be defined either for all {input.shape[dim]} classes or no classes "
            f"but got weight tensor of shape: {list(weight.shape)}"
        )
    return weight.reshape(-1, *[1] * (input.dim() - dim - 1))


def _warn_of_broadcasting(name: str, input: Tensor, target: Tensor) -> None:
    if target.shape != input.shape:
        warnings.warn(
            f"{name} of an input of shape {list(input.shape)} and a target of shape {list(target.shape)} "
            "broadcasts them, which is seldom what is meant",
            stacklevel=5,
        )


def _errors(
    name: str, function: Callable[..., Tensor], input: Tensor, target: Tensor, *constants: float
) -> tuple[Tensor, torch.dtype]:
    """The function of each pair of elements, or of their difference, and the type that both promote to."""
    dtype = torch.promote_types(input.dtype, target.dtype)
    if function is not table.absolute:  # torch takes integers and complex numbers for l1_loss alone
        _check_floating(name, dtype)
    elif torch.bool in (input.dtype, target.dtype):
        raise NotImplementedError(f"{name} cannot subtract booleans; turn them into numbers first")
    x, y = torch.broadcast_tensors(widen(input.to(dtype)), widen(target.to(dtype)))
    if function not in (table.absolute, table.square):
        return function(x, y, *constants), dtype
    difference = x - y
    if dtype.is_complex:
        return table.modulus(difference.real, difference.imag), difference.real.dtype
    return function(difference), dtype


@autocast(cpu="float32", cuda="float32")
def _reduce_unweighted(
    name: str, function: Callable[..., Tensor], input: Tensor, target: Tensor, *constants: float, reduction: str
) -> Tensor:
    losses, dtype = _errors(name, function, input, target, *constants)
    as_mean = reduction == "mean" and function is table.absolute  # whose gradient lies as that of torch's mean
    loss = losses.mean() if as_mean else reduce_losses(losses, reduction)
    return loss.to(dtype) if dtype.is_floating_point else loss  # a sum of integers is int64


def _reduce_weighted(
    name: str, function: Callable[..., Tensor], input: Tensor, target: Tensor, weight: Tensor, reduction: str
) -> Tensor:
    """The reduction of weighted errors, whose mean is divided by the sum of the weights."""
    losses, dtype = _errors(name, function, input, target)
    weighted = losses * _check_weight(weight, input)
    loss, dtype = reduce_losses(weighted, reduction, weight.sum()), torch.promote_types(dtype, weight.dtype)
    return loss.to(dtype) if dtype.is_floating_point else loss  # the mean of integers is no integer


def _check_weight(weight: Tensor, input: Tensor) -> Tensor:
    if weight.shape != input.shape:
        raise ValueError(
            f"weight and input must have the same shape, but got {list(weight.shape)} and {list(input.shape)}"
        )
    return weight


def _check_floating(name: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        raise NotImplementedError(f"{name} needs floating-point numbers, but got {dtype}")


def _check_same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"{name} needs an input and a target of the same shape, "
            f"but got {list(input.shape)} and {list(target.shape)}"
        )


def _check_probabilities(name: str, tensor: Tensor) -> None:
    """On the CPU alone: elsewhere looking at the elements waits for the device, and traced ones have no values."""
    if tensor.device.type != "cpu" or not has_concrete_values(tensor) or tensor.numel() == 0:
        return
    low, high = tensor.detach().aminmax()
    if not (low >= 0 and high <= 1):
        raise RuntimeError(f"all elements of {name} must be between 0 and 1, but they go from {low} to {high}")
