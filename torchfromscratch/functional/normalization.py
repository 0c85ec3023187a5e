"""Normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchfromscratch.autograd.local_response import channel_sums, response
from torchfromscratch.autograd.loss import square
from torchfromscratch.autograd.normalization import normalize, normalize_by_constants
from torchfromscratch.functional.arguments import changeable
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import is_compiling, is_transforming, needs_gradient, without_derivative
from torchfromscratch.kernels.layout import copy_to_memory_format, dense_strides, is_channels_last
from torchfromscratch.kernels.normalization import Statistics
from torchfromscratch.kernels.precision import NARROW_TYPES, wide_type, widen

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """γ·x̂ + β, standardised for each channel over the batch and space.

    In training, x̂ = (x − μ) / √(σ² + ε) with this batch's mean and variance, and the running statistics, if
    there are any, move towards them: r ← (1 − momentum)·r + momentum·(μ, or σ² times n / (n − 1)). Otherwise
    they take the place of μ and σ².

    dL/dγ = Σ dL/dy·x̂, dL/dβ = Σ dL/dy, and with h = γ·dL/dy, dL/dx = (h − mean(h) − x̂·mean(h·x̂)) / √(σ² + ε)
    in training, h / √(σ² + ε) otherwise.

    Shapes: input (N, C, *), all others (C) or None → (N, C, *).

    Raises ValueError for one value per channel in training, ε that is no positive number and one running
    statistic without the other; RuntimeError for tensors that have no element for each channel, unfitting
    types, missing running statistics and those that require gradients or carry tangents; NotImplementedError
    for an input that is no real floating-point tensor.

    Source: S. Ioffe and C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
    Internal Covariate Shift", 2015.
    """
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"batch_norm eps must be positive, but got {eps}")
    if input.dim() < 2 and tuple(input.shape) != (0,):
        raise RuntimeError(f"batch_norm needs an input (N, C, *), but got size {tuple(input.shape)}")
    if training:
        _check_more_than_one_value(input.shape[0] * math.prod(input.shape[2:]), input)
    shape = [1] * input.dim()
    axis = min(1, input.dim() - 1)
    channels = shape[axis] = input.shape[axis]
    _check(input, weight, bias, running_mean, running_var, size=channels)
    _check_statistics(running_mean, running_var)
    input = _without_gaps(input)
    weight, bias = _shape_parameters(shape, weight, bias)
    if not training:
        mean, variance = _require_statistics(running_mean, running_var)
        return normalize_by_constants(input, weight, bias, mean.view(shape), variance.view(shape), eps)
    stats = Statistics(tuple(dim for dim in range(input.dim()) if dim != axis), eps)
    output, mean, variance = normalize(input, weight, bias, stats)
    if input.numel():
        update_running(running_mean, running_var, mean, variance, momentum, stats.count(input))
    return output


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """γ·x̂ + β, standardised over space for each channel of each sample: batch_norm of every sample alone.

    The running statistics move towards the averages of all samples' mean and variance; without
    use_input_stats they take their place. They may be of another type than the input.

    Shapes: input (N, C, *), all others (C) or None → (N, C, *).

    Raises what batch_norm does, ValueError for a single spatial element.

    Source: D. Ulyanov et al., "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016.
    """
    if use_input_stats:
        spatial = math.prod(input.shape[2:])
        if spatial == 1:
            raise ValueError(
                f"instance_norm needs more than 1 spatial element when training, got input size {tuple(input.shape)}"
            )
    if input.dim() < 2:
        raise RuntimeError(f"instance_norm needs an input (N, C, *), but got size {tuple(input.shape)}")
    channels = input.shape[1]
    _check_sizes(channels, weight, bias, running_mean, running_var)
    _check(input, weight, bias)
    _check_statistics(running_mean, running_var)
    input = input.contiguous()
    shape = [1, channels, *[1] * (input.dim() - 2)]
    weight, bias = _shape_parameters(shape, None if weight is None else changeable(weight), bias)
    if not use_input_stats:
        mean, variance = [given.to(wide_type(input.dtype)) for given in _require_statistics(running_mean, running_var)]
        return normalize_by_constants(input, weight, bias, mean.view(shape), variance.view(shape), eps)
    stats = Statistics(tuple(range(2, input.dim())), eps)
    output, mean, variance = normalize(input, weight, bias, stats)
    if input.numel():
        if is_transforming():  # torch.func forbids to write into what it has not wrapped, but not by another name
            running_mean, running_var = [
                None if given is None else torch.ops.aten.alias(given) for given in (running_mean, running_var)
            ]
        update_running(running_mean, running_var, mean.mean(0), variance.mean(0), momentum, stats.count(input))
    return output


@autocast(cpu="as given", cuda="float32")
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ·x̂ + β, standardised over the last dimensions: x̂ = (x − μ) / √(σ² + ε).

    dL/dγ = Σ dL/dy·x̂, dL/dβ = Σ dL/dy, and with h = γ·dL/dy, dL/dx = (h − mean(h) − x̂·mean(h·x̂)) / √(σ² + ε).

    Shapes: input (*, *normalized_shape), weight and bias of normalized_shape or None → that of the input.

    Raises RuntimeError for shapes or types that do not fit, NotImplementedError for an input that is no real
    floating-point tensor.

    Source: J. Ba, J. Kiros and G. Hinton, "Layer Normalization", 2016.
    """
    shape = _check_normalized_shape("layer_norm", input, normalized_shape, weight, bias)
    _check(input, weight, bias)
    input = input.contiguous()
    weight, bias = _shape_parameters([*[1] * (input.dim() - len(shape)), *shape], weight, bias)
    stats = Statistics(tuple(range(input.dim() - len(shape), input.dim())), eps)
    return normalize(input, weight, bias, stats)[0]


@autocast(cpu="as given", cuda="float32")
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """γ·x / √(mean(x²) + ε) over the last dimensions: layer_norm without the mean.

    dL/dγ = Σ dL/dy·x̂, and with h = γ·dL/dy, dL/dx = (h − x̂·mean(h·x̂)) / √(mean(x²) + ε).

    Shapes: input (*, *normalized_shape), weight of normalized_shape or None → that of the input. If eps is
    None, it is the distance of 1 to the next number of the type that is computed in, float32 or float64.

    Raises RuntimeError for shapes that do not fit, ValueError for an input with fewer dimensions than
    normalized_shape, NotImplementedError for an input that is no real floating-point tensor.

    Source: B. Zhang and R. Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    if input.dim() < len(normalized_shape):
        raise ValueError(
            f"rms_norm over {len(normalized_shape)} dimensions needs at least as many, but got {input.dim()}"
        )
    shape = _check_normalized_shape("rms_norm", input, normalized_shape, weight)
    _check_real(input)
    if eps is None:
        eps = torch.finfo(torch.float64 if input.dtype == torch.float64 else torch.float32).eps
    input = _without_gaps(input)
    (weight,) = _shape_parameters([*[1] * (input.dim() - len(shape)), *shape], weight)
    stats = Statistics(tuple(range(input.dim() - len(shape), input.dim())), eps, centred=False)
    return normalize(input, weight, None, stats)[0]


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + α/n · Σ x²)^β, the sum over the `size` n channels around each, ⌊n/2⌋ before it.

    With s the sum in brackets, dL/dx = dL/dy · s^−β − 2αβ/n · x · Σ dL/dy · x · s^(−β−1), over the channels around
    which x is.

    Shapes: input (N, C, L), or with more dimensions → the same. Raises ValueError for fewer than three dimensions,
    RuntimeError for a size of less than 1, NotImplementedError for complex numbers and booleans.

    Source: A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012.
    """
    if input.dim() < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.dim()} dimensions)")
    if input.numel() == 0:
        return input
    if size < 1:
        raise RuntimeError(f"local_response_norm needs a size greater than zero, but got {size}")
    if input.is_complex() or input.dtype == torch.bool:
        raise NotImplementedError(f"local_response_norm is not defined for {input.dtype}")
    respond = _response_of_sequences if input.dim() == 3 else _response_of_pictures
    return respond(input, size, size // 2, (size - 1) // 2, alpha, beta, k)


def local_response(input: Tensor, size: int, before: int, behind: int, alpha: float, beta: float, k: float) -> Tensor:
    """`local_response_norm` of a window of so many channels before and behind, of which `size` is the divisor."""
    dtype = input.dtype if input.is_floating_point() else torch.get_default_dtype()
    x = widen(input.to(dtype))
    s = channel_sums(square(x), before, behind) * (alpha / size) + k
    return response(x, s, beta).to(dtype)


# torch averages the squares around each channel with the pooling of one dimension more, which autocast treats otherwise
_response_of_sequences = autocast(cpu="as given", cuda="float32")(local_response)
_response_of_pictures = autocast(cpu="float32", cuda="float32")(local_response)


@autocast(cpu="as given", cuda="float32")
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ·x̂ + β, standardised over space and a group of neighbouring channels of each sample.

    dL/dγ = Σ dL/dy·x̂, dL/dβ = Σ dL/dy, and with h = γ·dL/dy, dL/dx = (h − mean(h) − x̂·mean(h·x̂)) / √(σ² + ε).

    Shapes: input (N, C, *) with C a multiple of num_groups, weight and bias (C) or None → (N, C, *).

    Raises RuntimeError for shapes, groups or types that do not fit, ValueError for one value per group,
    NotImplementedError for an input that is no real floating-point tensor.

    Source: Y. Wu and K. He, "Group Normalization", 2018.
    """
    if input.dim() < 2:
        raise RuntimeError(f"group_norm: Expected at least 2 dimensions for input tensor but received {input.dim()}")
    batch, channels, *space = input.shape
    _check_more_than_one_value(batch * channels // num_groups * math.prod(space), input)
    if num_groups < 1 or channels % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}"
        )
    if channels == 0 or 0 in space:
        what = "HxW" if channels else "number of channels"
        raise RuntimeError(f"group_norm: Expected {what} to be greater than 0, got {list(input.shape)}")
    _check_parameter_shapes("group_norm", (channels,), weight, bias)
    _check(input, weight, bias)
    grouped = _without_gaps(input).view(batch, num_groups, channels // num_groups, *space)
    weight, bias = _shape_parameters([1, *grouped.shape[1:3], *[1] * len(space)], weight, bias)
    stats = Statistics(tuple(range(2, grouped.dim())), eps)
    return no_view(normalize(grouped, weight, bias, stats)[0], input.shape)


def _without_gaps(input: Tensor) -> Tensor:
    """As torch's kernels take it: channels last where it lies so, else contiguous; without gaps."""
    if not is_channels_last(input):
        return input.contiguous()
    if input.stride() == dense_strides(input.shape, channels_last=True):
        return input
    return copy_to_memory_format(input, channels_last=True)


def _shape_parameters(shape: Sequence[int], *parameters: Tensor | None) -> list[Tensor | None]:
    """γ and β, made to vary along the dimensions of the input that `shape` names."""
    return [None if parameter is None else parameter.reshape(shape) for parameter in parameters]


def _require_statistics(running_mean: Tensor | None, running_var: Tensor | None) -> tuple[Tensor, Tensor]:
    if running_mean is None or running_var is None:
        raise RuntimeError("to normalise without the input's own statistics, give running_mean and running_var")
    if not is_compiling():
        for statistic in (running_mean, running_var):
            if forward_ad.unpack_dual(statistic).tangent is not None:
                raise RuntimeError(
                    "batch_norm is not differentiable wrt running_mean and running_var, "
                    "they cannot have forward grad defined"
                )
    return running_mean, running_var


def _check_statistics(running_mean: Tensor | None, running_var: Tensor | None) -> None:
    """They are no part of what is differentiated, so a gradient asked of them would be wrong."""
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is not None and needs_gradient(statistic):
            raise RuntimeError(
                f"batch_norm is not differentiable with respect to argument {name!r}. "
                "This input cannot have requires_grad True."
            )


@without_derivative
def update_running(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    count: int,
) -> None:
    """Move the running statistics towards a batch's, whose variance over n elements is made unbiased."""
    if running_mean is None or running_var is None:
        if running_mean is not running_var:
            raise ValueError("running_mean and running_var must either both be None or neither be None")
        return
    unbias = count / max(count - 1, 1)
    kernels = triton.kernels("normalization", running_mean, running_var, mean, variance)
    if kernels is not None:
        kernels.update_running(running_mean, running_var, mean, variance, momentum, unbias)
        return
    unbiased = variance * unbias
    for running, new in ((running_mean, mean), (running_var, unbiased)):
        new = new.detach()  # an exported graph knows of no no_grad
        running.copy_((1 - momentum) * running + momentum * new.reshape(running.shape))


def _check_more_than_one_value(count: int, input: Tensor) -> None:
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)}")


def _check_real(input: Tensor) -> None:
    if not input.is_floating_point():
        raise NotImplementedError(f"normalisation needs a real floating-point tensor, but got {input.dtype}")


def _check(input: Tensor, *tensors: Tensor | None, size: int | None = None) -> None:
    """Parameters and running statistics are of the input's type, or float32 beside a narrower input."""
    _check_real(input)
    if size is not None:
        _check_sizes(size, *tensors)
    for name, tensor in zip(_NAMES[: len(tensors)], tensors, strict=True):
        if tensor is None:
            continue
        beside_narrow = input.dtype in NARROW_TYPES and tensor.dtype == torch.float32
        if tensor.dtype != input.dtype and not beside_narrow:
            raise RuntimeError(f"{name} of type {tensor.dtype} does not fit an input of type {input.dtype}")


def _check_sizes(channels: int, *tensors: Tensor | None) -> None:
    for name, tensor in zip(_NAMES[: len(tensors)], tensors, strict=True):
        if tensor is not None and tensor.numel() != channels:
            raise RuntimeError(f"{name} should have an element for each of {channels} channels, got {tensor.numel()}")


_NAMES = ("weight", "bias", "running_mean", "running_var")


def _check_normalized_shape(
    layer: str, input: Tensor, normalized_shape: Sequence[int], *parameters: Tensor | None
) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        if not shape:
            raise RuntimeError(f"{layer}: Expected normalized_shape to be at least 1-dimensional, but got {shape}")
        raise RuntimeError(
            f"{layer}: Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size {list(input.shape)}"
        )
    _check_parameter_shapes(layer, shape, *parameters)
    return shape


def _check_parameter_shapes(layer: str, shape: tuple[int, ...], *parameters: Tensor | None) -> None:
    described = "the number of channels" if layer == "group_norm" else "normalized_shape"
    for name, parameter in zip(("weight", "bias")[: len(parameters)], parameters, strict=True):
        if parameter is not None and tuple(parameter.shape) != shape:
            raise RuntimeError(
                f"{layer}: Expected {name} to be of same shape as {described}, but got {name} of shape "
                f"{list(parameter.shape)} and {described} = {list(shape)}"
            )
