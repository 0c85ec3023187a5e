"""Losses with a margin: of distances and cosines of pairs, of triplets, and of classes' scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch.autograd import loss as losses_of_pairs
from torchfromscratch.autograd import margin_loss as table
from torchfromscratch.autograd.distance import dot
from torchfromscratch.autograd.elementwise import relu
from torchfromscratch.functional.arguments import scalar_type
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.functional.distance import pairwise_distance
from torchfromscratch.functional.loss import in_common_type
from torchfromscratch.functional.reduction import choose_reduction, reduce_losses
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import has_concrete_values, needs_gradient
from torchfromscratch.kernels.precision import widen

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]

# torch adds it to the squared lengths of vectors whose cosine is a loss.
LEAST_SQUARE = 1e-12


@autocast(cpu="float32", cuda="float32")
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where y = 1, max(0, m − x) where y = −1, and both for any other y; dL/dx = 1, and −1 within the margin.

    Shapes are broadcast. Raises RuntimeError for integers.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    if not input.is_floating_point():
        raise RuntimeError(f"hinge_embedding_loss needs a floating-point input, but got {input.dtype}")
    x, alike, apart = torch.broadcast_tensors(widen(input), target != -1, target != 1)
    losses = table.keep(x, alike) + table.keep(table.hinge(margin - x), apart)
    return reduce_losses(losses, reduction).to(input.dtype)


@autocast(cpu="float32", cuda="float32")
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 − c where y = 1, max(0, c − m) where y = −1, of the cosine c = Σ x₁x₂ / √(Σ x₁² · Σ x₂²).

    dL/dx₁ = dL/dc · (x₂ / √(ab) − c · x₁ / a) with a = Σ x₁² and b = Σ x₂², to which 10⁻¹² is added.

    Shapes: inputs (N, D), target (N); or (D) and (). Raises RuntimeError for others.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    if target.dim() > 1:
        raise RuntimeError(f"0D or 1D target tensor expected, but got one of shape {list(target.shape)}")
    if not input1.dim() == input2.dim() == target.dim() + 1:
        raise RuntimeError(
            f"a {target.dim()}D target expects {target.dim() + 1}D inputs, "
            f"but got {list(input1.shape)} and {list(input2.shape)}"
        )
    (x1, x2), dtype = in_common_type(input1, input2)
    dim = target.dim()
    a, b = [losses_of_pairs.square(x).sum(dim) + LEAST_SQUARE for x in (x1, x2)]
    c, y = torch.broadcast_tensors(table.cosine_of_sums(dot(x1, x2, dim), a, b), target)
    losses = table.keep(1 - c, y == 1) + table.keep(table.hinge(c - margin), y == -1)
    return reduce_losses(losses, reduction).to(dtype)


@autocast(cpu="float32", cuda="float32")
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, m − y·(x₁ − x₂)), with dL/dx₁ = −y and dL/dx₂ = y within the margin; y = 1 ranks x₁ higher, −1 x₂.

    Shapes are broadcast. Raises RuntimeError where the numbers of dimensions differ.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have the same number of dimensions, but got sizes: "
            f"input1: {list(input1.shape)}, input2: {list(input2.shape)}, target: {list(target.shape)}"
        )
    (x1, x2, y), dtype = in_common_type(input1, input2, target)
    return reduce_losses(table.hinge(table.product(-y, x1 - x2) + margin), reduction).to(dtype)


@autocast(cpu="float32", cuda="float32")
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + e⁻ʸˣ) of classes y = ±1, with dL/dx = −y · σ(−yx). Shapes are broadcast; RuntimeError for integers."""
    reduction = choose_reduction(reduction, size_average, reduce)
    if not (input.is_floating_point() or input.is_complex()):
        raise RuntimeError(f"soft_margin_loss returns the input's type, which cannot be {input.dtype}")
    (x, y), _ = in_common_type(input, target)
    return reduce_losses(table.soft_margin(x, y), reduction).to(input.dtype)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """−y·log σ(x) − (1 − y)·log(1 − σ(x)), the mean over the classes, of several labels y for each sample.

    dL/dx = (σ(x) − y) / C. Shapes: input and target (N, C) or of any shape whose last dimension is that of the
    classes, which have a weight each. Raises NotImplementedError for a boolean target.
    """
    if target.dtype == torch.bool:
        raise NotImplementedError("a boolean target cannot be subtracted; turn it into the input's type first")
    (z, y), dtype = in_common_type(input, target)
    losses = losses_of_pairs.sigmoid_cross_entropy(z, y)
    if weight is not None:
        losses, dtype = losses * widen(weight), torch.promote_types(dtype, weight.dtype)
    means = losses.sum(-1) / input.shape[-1]
    return reduce_losses(means, choose_reduction(reduction, size_average, reduce)).to(dtype)


@autocast(cpu="float32", cuda="float32")
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Σ_{c ≠ t} w_t · max(0, m − x_t + x_c)ᵖ / C of a class t and scores x, p = 1 or 2.

    dL/dx_c = w_t · p · max(0, m − x_t + x_c)ᵖ⁻¹ / C within the margin, and −1 times their sum for x_t.

    Shapes: input (N, C) or (C), target (N) or (), weight (C). Raises ValueError for another p and a weight of other
    than one dimension, RuntimeError for shapes, types and classes that do not fit.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError(f"only p == 1 and p == 2 supported, but got {p}")
    if weight is not None and weight.dim() != 1:
        raise ValueError(f"weight must be one-dimensional, but got shape {list(weight.shape)}")
    scores = _scores("multi_margin_loss", input)
    samples, classes = scores.shape
    if target.dim() > 1 or target.numel() != samples:
        raise RuntimeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples. "
            f"Expected target size [{samples}], but got {list(target.shape)}"
        )
    if weight is not None and weight.shape != (classes,):
        raise RuntimeError(f"inconsistent weight size, expected {classes} but got {list(weight.shape)}")
    _require_classes("multi_margin_loss", target, classes, least=0)
    t = target.reshape(samples, 1)
    others = torch.arange(classes, device=t.device) != t
    hinge = relu if p == 1 else table.squared_hinge
    losses = table.keep(hinge(table.margins(scores, t) + margin), others.unsqueeze(1)).sum((1, 2)) / classes
    if weight is not None:
        _require_no_gradient("multi_margin_loss", "weight", weight)
        losses = losses * widen(weight)[t.squeeze(1)]
    return reduce_losses(no_view(losses, target.shape), reduction).to(input.dtype)


@autocast(cpu="float32", cuda="float32")
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Σ_{t ∈ T} Σ_{c ∉ T} max(0, 1 − x_t + x_c) / C of a set T of classes and scores x.

    dL/dx_c counts the classes of T within the margin of c, and −dL/dx_t those within the margin of t, over C.

    Shapes: input (N, C) or (C), target the same: T, ended by −1 unless it has all C. Raises RuntimeError for shapes,
    types and classes that do not fit.
    """
    reduction = choose_reduction(reduction, size_average, reduce)
    scores = _scores("multilabel_margin_loss", input)
    if target.shape != input.shape:
        raise RuntimeError(f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    _require_classes("multilabel_margin_loss", target, scores.shape[1], least=-1)
    labels = target.reshape(scores.shape)
    is_label = (labels >= 0).cumprod(1).bool()
    if has_concrete_values(labels):  # the longest list, beyond which there is nothing to compute
        longest = int(is_label.sum(1).max()) if len(labels) else 0
        labels, is_label = labels[:, :longest], is_label[:, :longest]
    losses = table.multilabel_margin(scores, labels.masked_fill(~is_label, 0), is_label)
    return reduce_losses(no_view(losses, input.shape[:-1]), reduction).to(input.dtype)


@autocast(cpu="float32", cuda="float32")
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, m + d(a, p) − d(a, n)) of the distances of an anchor to a positive and a negative example.

    d is `pairwise_distance`; `swap` takes the negative's distance to the positive example, where that is less.
    Shapes are broadcast. Raises ValueError for a margin of 0 or less, RuntimeError where the numbers of dimensions
    differ.
    Source: V. Balntas et al., "Learning local feature descriptors with triplets and shallow CNNs", 2016.
    """
    reduction = choose_reduction(reduction, size_average, reduce)

    def distance(x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, p, eps)

    return _triplet_margin_loss(anchor, positive, negative, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` of a distance of one's own; `pairwise_distance` unless given."""
    reduction = choose_reduction(reduction)
    return _triplet_margin_loss(
        anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction
    )


def _triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.dim()}D, positive {positive.dim()}D, and negative {negative.dim()}D inputs"
        )
    to_positive, to_negative = distance(anchor, positive), distance(anchor, negative)
    if swap:
        between = distance(positive, negative)
        to_negative = table.smaller(*torch.broadcast_tensors(to_negative, between))
    return reduce_losses(table.hinge(margin + to_positive - to_negative), reduction)


def _scores(name: str, input: Tensor) -> Tensor:
    """(N, C) as it is, (C) and () as a batch of one, in a wide type."""
    if input.dim() > 2 or 0 in input.shape[-1:]:
        raise RuntimeError(
            f"{name}: Expected non-empty vector or matrix with optional 0-dim batch size, but got: {list(input.shape)}"
        )
    if not input.is_floating_point():
        raise NotImplementedError(f"{name} needs floating-point numbers, but got {input.dtype}")
    return widen(input) if input.dim() == 2 else widen(input).reshape(1, -1)


def _require_classes(name: str, target: Tensor, classes: int, least: int) -> None:
    if target.dtype != torch.int64:
        raise RuntimeError(f"{name}: expected scalar type Long but found {scalar_type(target.dtype)}")
    if has_concrete_values(target) and target.numel():
        low, high = [int(bound) for bound in target.aminmax()]
        if low < least or high >= classes:
            raise RuntimeError(
                f"{name}: target out of range: classes go from {least} to {classes - 1}, but got {low} to {high}"
            )


def _require_no_gradient(name: str, what: str, tensor: Tensor) -> None:
    if needs_gradient(tensor):
        raise RuntimeError(f"{name} is not differentiable by its {what}, but got one that requires a gradient")
