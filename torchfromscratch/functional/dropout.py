"""Dropout."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch.autograd.dropout import drop, drop_at_random
from torchfromscratch.functional.arguments import overwrite
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.execution import is_compiling

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

# What SELU tends to at −∞, which alpha dropout puts in the place of what it drops: −scale·alpha of selu.
SATURATION = -1.7580993408473766


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """x·m / (1 − p) in training, where each element of the mask m is 0 with probability p, else 1.

    dL/dx = dL/dy·m / (1 − p). Any shape. The mask is the one that torch.nn.functional draws,
    but where a kernel for GPUs draws it: there torch.manual_seed repeats another.

    Raises ValueError for p outside [0, 1], RuntimeError for a type without fractions.

    Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """
    return _drop(input, p, training, inplace, _of_elements, _scale)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of an input (N, C, L) or (C, L).

    Raises what dropout does, and RuntimeError for another number of dimensions.

    Source: J. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015.
    """
    if input.dim() not in (2, 3):
        raise RuntimeError(f"dropout1d needs an input (N, C, L) or (C, L), but got {input.dim()} dimensions")
    return _drop_channels(input, p, training, inplace, batched=input.dim() == 3)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of an input (N, C, H, W).

    Raises what dropout does, and RuntimeError for fewer than two dimensions. Warns for other than four:
    as torch.nn.functional does, it takes the first two dimensions for N and C.

    Source: J. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015.
    """
    if input.dim() != 4:
        warnings.warn(
            f"dropout2d takes the first two of the {input.dim()} dimensions for N and C; for an input without "
            "batch use dropout1d (C, L) or dropout3d (C, D, H, W), or add the batch dimension",
            stacklevel=3,
        )
    return _drop_channels(input, p, training, inplace, batched=True)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of an input (N, C, D, H, W) or (C, D, H, W).

    Raises what dropout does. Warns for another number of dimensions, whose first it takes for C.

    Source: J. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015.
    """
    if input.dim() not in (4, 5):
        warnings.warn(
            f"dropout3d needs an input (N, C, D, H, W) or (C, D, H, W), but got {input.dim()} dimensions",
            stacklevel=3,
        )
    return _drop_channels(input, p, training, inplace, batched=input.dim() == 5)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """a·(x·m + s·(1 − m)) + b: dropout that keeps mean 0 and variance 1, for networks of SELU.

    What is dropped becomes s, the value that SELU saturates at; a = 1 / √((1 − p)·(1 + p·s²)) and b = −a·p·s.
    dL/dx = a·dL/dy·m. Any shape. Raises what dropout does.

    Source: G. Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    """
    return _drop(input, p, training, inplace, _of_elements, _saturate)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels of an input (N, C, *). Raises what dropout does."""
    return _drop(input, p, training, inplace, _of_channels, _saturate)


def _drop(
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    mask_of: Callable[[Tensor], Tensor],
    through: Callable[[Tensor, Tensor, float], Tensor],
) -> Tensor:
    if not 0 <= p <= 1:
        error = RuntimeError if math.isnan(p) else ValueError  # as torch
        raise error(f"dropout probability has to be between 0 and 1, but got {p}")
    if p == 0 or not training or input.numel() == 0:
        return input
    if p == 1:
        output = drop(input, input.new_zeros((), dtype=torch.bool), 1)
    elif mask_of is _of_elements and through is _scale and not is_compiling() and triton.can_run(input):
        output, _ = drop_at_random(input, 1 - p)
    else:
        output = through(input, mask_of(input).bernoulli_(1 - p), p)
    return overwrite(input, output) if inplace else output


def _drop_channels(input: Tensor, p: float, training: bool, inplace: bool, batched: bool) -> Tensor:
    if batched:
        return _drop(input, p, training, inplace, _of_channels, _scale)
    output = _drop(input.unsqueeze(0), p, training, inplace, _of_channels, _scale).squeeze(0)
    return input if inplace else output


def _of_elements(input: Tensor) -> Tensor:
    return torch.empty_like(input, dtype=torch.bool)


def _of_channels(input: Tensor) -> Tensor:
    if input.dim() < 2:
        raise RuntimeError(f"dropout of channels needs an input (N, C, *), but got size {tuple(input.shape)}")
    return input.new_empty([*input.shape[:2], *[1] * (input.dim() - 2)], dtype=torch.bool)


def _scale(input: Tensor, mask: Tensor, p: float) -> Tensor:
    return drop(input, mask, 1 - p)


def _saturate(input: Tensor, mask: Tensor, p: float) -> Tensor:
    a = ((1 - p) * (1 + p * SATURATION**2)) ** -0.5
    shift = (~mask).to(input.dtype).sub_(p).mul_(a * SATURATION)
    return drop(input, mask, 1 / a) + shift
