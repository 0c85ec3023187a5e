"""The three partial gradients of the trilinear form that convolution is, and the choice of their algorithm.

    S(x, w, g) = Σ g[n, o, i] · w[o, c, k] · x[n, c, i·s + k·d − p]

    correlate         ∂S/∂g    y      cross-correlation of x with w
    full_convolution  ∂S/∂x    dL/dx  full convolution of dL/dy with w: correlation with the rotated kernel
    weight_gradient   ∂S/∂w    dL/dw  cross-correlation of x with dL/dy

x is (N, C, *input), w (O, C/groups, *k) and g (N, O, *output), for any number of spatial dimensions. Each
algorithm is a module with these three functions, and knows nothing of differentiation. `gradients` are the last
two together, which an algorithm may compute for less than one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from torchfromscratch.kernels import depthwise, depthwise_runs, dilated, direct, fourier, im2col, planes, winograd
from torchfromscratch.kernels.execution import in_cpu_memory, is_batched, is_tracing
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.precision import NARROW_TYPES
from torchfromscratch.kernels.windows import Windows

ALGORITHMS: dict[str, ModuleType] = {"direct": direct, "im2col": im2col, "winograd": winograd, "fft": fourier}

# Below so many channels Winograd's transforms cost more than what they save, and below so many
# multiplications preparing its steps does; one of complex numbers takes as long as so many of real ones.
WINOGRAD_CHANNELS = 8
WINOGRAD_SAVES = 2**25
COMPLEX_COST = 5

# A depthwise tap multiplies elements, not matrices: each multiplication takes about as long as so many of those. With
# 127 taps in a row, or 13×13, the transform takes 0.4 to 0.8 of the taps' time, with 63 or 9×9 up to 1.8 times as long.
ELEMENTWISE_COST = 5
FEWEST_TAPS = 64

# Pictures that dilated windows see of one: 2×2 take 0.5 to 0.9 times as long as windows, of 64 channels 4×4 as long
# and 8×8 up to 1.6 times.
DILATED_PICTURES = 4


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y[n, o, i] = b[o] + Σ_{c,k} w[o, c, k] · x[n, c, i·s + k·d − p]."""
    if input.shape[0] == 0:  # no pictures, of whatever size
        shape = 0, weight.shape[0], *windows.output_size(input.shape[2:])
        return empty(shape, any_channels_last(input, weight), like=input)
    method = choose((input, weight, bias), (input.shape[1], weight.shape[0]), input.shape[2:], windows)
    if rounds_often(method, input, windows):
        wide_bias = None if bias is None else bias.float()
        return method.correlate(input.float(), weight.float(), wide_bias, windows).to(input.dtype)
    return method.correlate(input, weight, bias, windows)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx[n, c, j] = Σ_{o,k} w[o, c, k] · dL/dy[n, o, i], over all i and k with i·s + k·d − p = j."""
    channels = weight.shape[1] * windows.groups, weight.shape[0]
    if grad_output.shape[0] == 0:
        return empty((0, channels[0], *input_size), any_channels_last(grad_output, weight), like=grad_output)
    method = choose((grad_output, weight), channels, input_size, windows)
    if rounds_often(method, grad_output, windows):
        grad_input = method.full_convolution(grad_output.float(), weight.float(), windows, input_size)
        return grad_input.to(grad_output.dtype)
    return method.full_convolution(grad_output, weight, windows, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw[o, c, k] = Σ_{n,i} dL/dy[n, o, i] · x[n, c, i·s + k·d − p]."""
    if input.shape[0] == 0:
        shape = grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size
        return empty(shape, any_channels_last(input, grad_output), like=input).zero_()
    method = choose((input, grad_output), (input.shape[1], grad_output.shape[1]), input.shape[2:], windows)
    if rounds_often(method, input, windows):
        return method.weight_gradient(input.float(), grad_output.float(), windows).to(input.dtype)
    return method.weight_gradient(input, grad_output, windows)


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw; from the same work only where each window sees some of the input.

    A window over nothing but padding has no share in dL/dx, but if its dL/dy is NaN, so is dL/dw.
    """
    channels = input.shape[1], weight.shape[0]
    method = choose((grad_output, weight, input), channels, input.shape[2:], windows)
    shares_work = method in (depthwise_runs, winograd, dilated, planes)
    if shares_work and windows.all_see_input and not rounds_often(method, input, windows):
        both: tuple[Tensor, Tensor] = method.gradients(input, weight, grad_output, windows)
        return both
    grad_input = full_convolution(grad_output, weight, windows, input.shape[2:])
    return grad_input, weight_gradient(input, grad_output, windows)


def choose(
    operands: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None],
    channels: tuple[int, int],
    input_size: Sequence[int],
    windows: Windows,
) -> ModuleType:
    """The caller's algorithm, or the one that was measured to be the fastest for channels (C, O) and sizes.

    Winograd's and the Fourier transform's rounding errors are a little larger, so float64, which is asked for
    by those who want the last digit, is left to plain products. GPUs and compilers get whole matrices.
    """
    batch, dtype = operands[0].shape[0], operands[0].dtype
    if 0 in (batch, *channels) or is_batched(*operands):
        return im2col
    if windows.algorithm is not None and not is_tracing():
        return forced(windows)
    if channels[0] == windows.groups > 1 and windows.all_see_input:
        many = windows.tap_count >= FEWEST_TAPS and set(windows.stride) == {1} and dtype == torch.float32
        if many and in_cpu_memory(*operands) and _fourier_pays(batch, channels, input_size, windows, ELEMENTWISE_COST):
            return fourier
        as_it_lies = is_tracing() or any_channels_last(*[t for t in operands if t is not None])
        return depthwise if as_it_lies else depthwise_runs
    if not in_cpu_memory(*operands) or dtype in NARROW_TYPES:
        return im2col
    if windows.tap_count == 1:
        return direct
    if dtype == torch.float32 and set(windows.stride) == {1}:
        for method in (winograd, dilated, planes):
            if method.fits(windows):
                return method if _winograd_pays(method, batch, channels, input_size, windows) else im2col
        return fourier if _fourier_pays(batch, channels, input_size, windows) else im2col
    return im2col


def forced(windows: Windows) -> ModuleType:
    """The algorithm that the caller chose, if it is made for these windows."""
    method = ALGORITHMS[windows.algorithm or ""]
    if method is winograd and not winograd.fits(windows):
        for its_kind in (dilated, planes):
            if its_kind.fits(windows):
                return its_kind
        raise ValueError(
            "the algorithm 'winograd' is made for 3×3 kernels with stride 1 and one group, but got "
            f"kernel_size={windows.kernel_size}, stride={windows.stride}, groups={windows.groups}; "
            '"im2col" computes any'
        )
    return method


def _winograd_pays(
    method: ModuleType, batch: int, channels: tuple[int, int], input_size: Sequence[int], windows: Windows
) -> bool:
    cost = method.multiplications(batch, channels, input_size, windows)
    saved = _multiplications(batch, channels, input_size, windows) - cost
    least = WINOGRAD_SAVES if method is winograd else max(WINOGRAD_SAVES, cost)  # the others make pictures first
    few = math.prod(windows.dilation[-2:]) <= DILATED_PICTURES
    return few and min(channels) >= WINOGRAD_CHANNELS and saved >= least


def _fourier_pays(
    batch: int, channels: tuple[int, int], input_size: Sequence[int], windows: Windows, cost_of_windows: int = 1
) -> bool:
    blocks = fourier.choose_blocks(batch, channels, input_size, windows)
    cost = blocks.multiplications(batch, channels, windows.groups) * COMPLEX_COST
    return cost < _multiplications(batch, channels, input_size, windows) * cost_of_windows


def _multiplications(batch: int, channels: tuple[int, int], input_size: Sequence[int], windows: Windows) -> int:
    """What windows cost."""
    outputs = batch * math.prod(windows.output_size(input_size))
    return outputs * windows.tap_count * math.prod(channels) // windows.groups


def rounds_often(method: ModuleType, data: Tensor, windows: Windows) -> bool:
    """Whether a narrow type would be rounded at every step, which torch's convolution does not do."""
    one_step = method is im2col or (windows.tap_count == 1 and method not in (depthwise, depthwise_runs))
    return data.dtype in NARROW_TYPES and not one_step
