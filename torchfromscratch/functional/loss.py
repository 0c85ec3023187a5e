"""Loss functions."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd import loss as table
from torchfromscratch.autograd.precision import widened
from torchfromscratch.functional.autocast import autocast

__all__ = ["cross_entropy", "nll_loss"]


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
    reduction = _reduction(reduction, size_average, reduce)
    _check_floating("cross_entropy", input)
    if label_smoothing > 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0, got {label_smoothing}")
    smoothing = max(label_smoothing, 0.0)
    if input.shape == target.shape:
        return _cross_entropy_of_probabilities(input, target, weight, reduction, smoothing)
    dim = _class_dim(input)
    t, h, ignored = _class_target(input, target, weight, ignore_index)
    density = None
    if smoothing:
        spread = widened(input.new_ones(()) if weight is None else _along_classes(weight, input))
        density = (smoothing / input.shape[dim] * spread).expand(input.shape)
    losses = table.softmax_cross_entropy(input, t, (1 - smoothing) * h, density, dim)
    losses = losses.masked_fill(ignored, 0).squeeze(dim)
    return _reduced(losses, reduction, h.sum()).to(input.dtype)


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
    reduction = _reduction(reduction, size_average, reduce)
    _check_floating("nll_loss", input)
    dim = _class_dim(input)
    t, h, ignored = _class_target(input, target, weight, ignore_index)
    losses = table.negative_log_likelihood(input, t, h, dim).masked_fill(ignored, 0).squeeze(dim)
    return _reduced(losses, reduction, h.sum()).to(input.dtype)


def _cross_entropy_of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    if not target.is_floating_point():
        raise RuntimeError(f"a target of the input's shape must be class probabilities, but got {target.dtype}")
    dtype = torch.promote_types(input.dtype, target.dtype)
    dim = _class_dim(input)
    density = (1 - smoothing) * widened(target) + smoothing / max(input.shape[dim], 1)
    if weight is not None:
        dtype = torch.promote_types(dtype, weight.dtype)
        density = density * widened(_along_classes(weight, input))
    losses = table.softmax_cross_entropy(input, None, None, density, dim).squeeze(dim)
    return _reduced(losses, reduction).to(dtype)


def _class_target(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, their weights (0 where ignored) and which are ignored, each (N, 1, …)."""
    dim = _class_dim(input)
    expected = [*input.shape[:dim], *input.shape[dim + 1 :]]
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(f"expected target classes of type int64 or uint8, but got {target.dtype}")
    if dim == 0:
        if target.dim() == 1 and target.shape[0] == 1:
            target = target.squeeze(0)
        if target.dim() == 1:
            raise ValueError(f"an input without a batch has one target, but got {target.shape[0]}")
    elif target.dim() == 0 or target.shape[0] != input.shape[0]:
        raise ValueError(
            f"input and target differ in batch size: got shapes {list(input.shape)} and {list(target.shape)}"
        )
    if list(target.shape) != expected:
        raise RuntimeError(f"expected a target of shape {expected}, but got {list(target.shape)}")
    target = target.long().unsqueeze(dim)
    ignored = target == ignore_index
    classes = target.masked_fill(ignored, 0)
    if weight is None:
        weights = torch.ones_like(classes, dtype=widened(input[:0]).dtype)
    else:
        if weight.dtype != input.dtype:
            raise RuntimeError(f"expected weights of the input's type {input.dtype}, but got {weight.dtype}")
        _along_classes(weight, input)
        weights = widened(table.pick(weight, 0, classes.reshape(-1))).reshape(classes.shape)
    return classes, weights.masked_fill(ignored, 0), ignored


def _class_dim(input: Tensor) -> int:
    if input.dim() == 0:
        raise ValueError("expected an input of shape (C), (N, C) or (N, C, d1, …), but got a scalar")
    return 0 if input.dim() == 1 else 1


def _along_classes(weight: Tensor, input: Tensor) -> Tensor:
    """The weights of the classes, shaped to multiply the input."""
    dim = _class_dim(input)
    if weight.dim() != 1 or weight.shape[0] != input.shape[dim]:
        raise RuntimeError(
            f"expected a weight for each of {input.shape[dim]} classes, but got a tensor of shape {list(weight.shape)}"
        )
    return weight.reshape(-1, *[1] * (input.dim() - dim - 1))


def _reduced(losses: Tensor, reduction: str, total: Tensor | None = None) -> Tensor:
    """The losses, their sum, or their mean: the sum divided by `total`, which is their number if not given."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.mean() if total is None else losses.sum() / total


def _reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The reduction to make; the two arguments that PyTorch deprecates have the last word."""
    if size_average is not None or reduce is not None:
        return torch.nn._reduction.legacy_get_string(size_average, reduce)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'reduction must be "none", "mean" or "sum", but got {reduction!r}')
    return reduction


def _check_floating(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise NotImplementedError(f"{name} needs a floating-point input, but got {input.dtype}")
