"""Which algorithm computes a convolution: the caller's, or the cheapest that fits.

The four functions are those of the package, whatever the algorithm. `gradients` are dL/dx and dL/dw together, which an
algorithm may compute for less than one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels.convolution.depthwise import DEPTHWISE
from torchfromscratch.kernels.convolution.depthwise_runs import DEPTHWISE_RUNS
from torchfromscratch.kernels.convolution.fft import FFT
from torchfromscratch.kernels.convolution.im2col import IM2COL
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.pointwise import POINTWISE
from torchfromscratch.kernels.convolution.reference import REFERENCE
from torchfromscratch.kernels.convolution.triton import TRITON
from torchfromscratch.kernels.convolution.winograd import WINOGRAD
from torchfromscratch.kernels.convolution.winograd_3d import WINOGRAD_3D
from torchfromscratch.kernels.convolution.winograd_dilated import WINOGRAD_DILATED
from torchfromscratch.kernels.custom_ops import custom_op
from torchfromscratch.kernels.execution import is_batched, is_tracing
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.planning import cache_plans
from torchfromscratch.kernels.precision import NARROW_TYPES, products_as_of_convolutions
from torchfromscratch.kernels.triton import IS_INTERPRETED, LEAST_VERSION, can_run
from torchfromscratch.kernels.windows import Windows

# Of those that cost the same, the first is taken.
KERNELS = (
    TRITON,
    REFERENCE,
    POINTWISE,
    DEPTHWISE_RUNS,
    DEPTHWISE,
    WINOGRAD,
    WINOGRAD_DILATED,
    WINOGRAD_3D,
    FFT,
    IM2COL,
)

# For GPUs and for compilers, whose sizes may be symbols, which no cost is compared of: the first that fits.
ANYWHERE = (TRITON, DEPTHWISE_RUNS, DEPTHWISE, IM2COL)

# What a caller may choose.
ALGORITHMS = ("reference", "im2col", "winograd", "fft", "triton")


def empty_output(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, algorithm: str | None) -> Tensor:
    """Memory for y."""
    shape = (input.shape[0], weight.shape[0], *windows.output_size(input.shape[2:]))
    return empty(shape, any_channels_last(input, weight), like=input)


def empty_input(
    grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int], algorithm: str | None
) -> Tensor:
    """Memory for dL/dx."""
    shape = (grad_output.shape[0], weight.shape[1] * windows.groups, *input_size)
    return empty(shape, any_channels_last(grad_output, weight), like=grad_output)


def empty_weight(input: Tensor, grad_output: Tensor, windows: Windows, algorithm: str | None) -> Tensor:
    """Memory for dL/dw."""
    shape = (grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size)
    return empty(shape, any_channels_last(input, grad_output), like=input)


def empty_gradients(
    input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows, algorithm: str | None
) -> tuple[Tensor, Tensor]:
    """Memory for dL/dx and dL/dw."""
    grad_input = empty_input(grad_output, weight, windows, input.shape[2:], algorithm)
    return grad_input, empty_weight(input, grad_output, windows, algorithm)


@custom_op(like=empty_output)
def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, algorithm: str | None) -> Tensor:
    """y[n, o, i] = b[o] + Σ_{c,k} w[o, c, k] · x[n, c, i·s + k·d − p]."""
    if input.shape[0] == 0:
        return empty_output(input, weight, bias, windows, algorithm)
    kernel = choose((input, weight, bias), (input.shape[1], weight.shape[0]), input.shape[2:], windows, algorithm)
    return execute(kernel, kernel.correlate, input, weight, bias, windows)


@custom_op(like=empty_input)
def full_convolution(
    grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int], algorithm: str | None
) -> Tensor:
    """dL/dx[n, c, j] = Σ_{o,k} w[o, c, k] · dL/dy[n, o, i], over all i and k with i·s + k·d − p = j."""
    if grad_output.shape[0] == 0:
        return empty_input(grad_output, weight, windows, input_size, algorithm)
    channels = weight.shape[1] * windows.groups, weight.shape[0]
    kernel = choose((grad_output, weight), channels, input_size, windows, algorithm)
    return execute(kernel, kernel.full_convolution, grad_output, weight, windows, input_size)


@custom_op(like=empty_weight)
def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows, algorithm: str | None) -> Tensor:
    """dL/dw[o, c, k] = Σ_{n,i} dL/dy[n, o, i] · x[n, c, i·s + k·d − p]."""
    if input.shape[0] == 0:
        return empty_weight(input, grad_output, windows, algorithm).zero_()
    channels = input.shape[1], grad_output.shape[1]
    kernel = choose((input, grad_output), channels, input.shape[2:], windows, algorithm)
    return execute(kernel, kernel.weight_gradient, input, grad_output, windows)


@custom_op(like=empty_gradients)
def gradients(
    input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows, algorithm: str | None
) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw; from the same work only where each window sees some of the input.

    A window over nothing but padding has no share in dL/dx, but if its dL/dy is NaN, so is dL/dw.
    """
    if input.shape[0] == 0:
        grad_input, grad_weight = empty_gradients(input, weight, grad_output, windows, algorithm)
        return grad_input, grad_weight.zero_()
    channels, size = (input.shape[1], weight.shape[0]), input.shape[2:]
    kernel = choose((input, weight, grad_output), channels, size, windows, algorithm)
    if kernel.gradients is not None and windows.all_see_input:
        return execute(kernel, kernel.gradients, input, weight, grad_output, windows)
    grad_input = execute(kernel, kernel.full_convolution, grad_output, weight, windows, size)
    return grad_input, execute(kernel, kernel.weight_gradient, input, grad_output, windows)


def execute(kernel: Kernel, operation: Callable[..., Any], *args: Any) -> Any:
    """The kernel's operation, in float32 where it would round a narrow type at every step, as torch's does not."""
    dtype = args[0].dtype
    if args[0].is_cuda and dtype == torch.float32 and kernel is not TRITON and not is_tracing():
        with products_as_of_convolutions():
            return operation(*args)
    if dtype not in NARROW_TYPES or kernel.rounds_once:
        return operation(*args)
    results = operation(*[arg.float() if isinstance(arg, Tensor) else arg for arg in args])
    return results.to(dtype) if isinstance(results, Tensor) else tuple([result.to(dtype) for result in results])


def choose(
    operands: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None],
    channels: tuple[int, int],
    input_size: Sequence[int],
    windows: Windows,
    algorithm: str | None,
) -> Kernel:
    """The caller's algorithm, or the one that costs least for channels (C, O) and sizes."""
    if is_batched(*operands):
        return IM2COL
    first, tracing, channels_last = operands[0], is_tracing(), any_channels_last(*operands[:2])
    on_cpu = first.is_cpu and not tracing
    by_triton = (IS_INTERPRETED or not first.is_cpu) and can_run(*operands, algorithm=algorithm)
    fields = channels, input_size, windows, first.dtype, channels_last, on_cpu, tracing, by_triton
    return kernel_for(algorithm, first.shape[0], *fields)


@cache_plans
def kernel_for(algorithm: str | None, *fields: Any) -> Kernel:
    """The kernel for a `Task` of these fields: the cheapest that fits, or the first of the caller's that does."""
    task = Task(*fields)
    if 0 in (task.batch, *task.channels):
        return IM2COL
    if algorithm is not None and not task.is_tracing:
        return kernel_by_name(algorithm, task)
    if not task.on_cpu:
        return next(kernel for kernel in ANYWHERE if kernel.fits(task))
    return min([kernel for kernel in KERNELS if kernel.fits(task)], key=lambda kernel: kernel.cost(task))


def kernel_by_name(algorithm: str, task: Task) -> Kernel:
    """The algorithm that the caller chose, if it is made for these windows."""
    for kernel in KERNELS:
        if kernel.name == algorithm and kernel.fits(task):
            return kernel
    windows = task.windows
    if algorithm == "triton":
        raise ValueError(
            "the algorithm 'triton' takes real floats on a CUDA device, and in CPU memory only in Triton's interpreter "
            "(set the environment variable TRITON_INTERPRET=1 before triton is imported); it needs triton "
            f"{LEAST_VERSION} or newer"
        )
    raise ValueError(
        "the algorithm 'winograd' is made for 3×3 kernels with stride 1 and one group, but got "
        f"kernel_size={windows.kernel_size}, stride={windows.stride}, groups={windows.groups}; "
        '"im2col" computes any'
    )
