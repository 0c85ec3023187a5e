"""Which graphics cards the kernels run on."""

from __future__ import annotations

import functools
import warnings

import torch

from torchfromscratch import _torch_private as private

# The compute capability of the oldest that kernels are compiled for. For older ones Triton multiplies matrices without
# tensor cores, and there is no bfloat16.
LEAST_CAPABILITY = (8, 0)


@private.constant_to_dynamo
def takes(index: int) -> bool:
    """Whether kernels run on this CUDA device: an NVIDIA card of `LEAST_CAPABILITY`, which Triton can launch on.

    What it launches by it builds with the machine's C compiler, which not every system has. A device that is not there
    is that of fake tensors, where nothing is computed.
    """
    return _takes(index)


@functools.cache
def _takes(index: int) -> bool:
    if torch.version.hip is not None:
        return False
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return True
    return torch.cuda.get_device_capability(index) >= LEAST_CAPABILITY and _triton_can_launch()


@functools.cache
def _triton_can_launch() -> bool:
    from triton.runtime import driver

    try:
        driver.active.get_current_device()
    except Exception as error:  # of whatever kind: no compiler, no header files, no library of the driver
        reason = f"Triton cannot launch kernels here: {type(error).__name__}: {error}"
        warnings.warn(f"{reason}; so torch's arithmetic computes the layers, which takes longer", stacklevel=2)
        return False
    return True
