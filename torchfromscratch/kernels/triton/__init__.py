"""Layers' kernels for GPUs, written by hand in Triton: one file a family, each kernel beside its formula.

The files of the families import triton, which not every build of torch brings; so each is imported where it is called,
behind `can_run`. `launch` makes kernels operations that autograd, torch.compile and fake tensors know.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from torchfromscratch.kernels.choice import chosen_algorithm
from torchfromscratch.kernels.execution import (
    is_batched,
    is_compiling,
    is_differentiating,
    is_exporting,
    is_tracing,
    is_transforming,
)
from torchfromscratch.kernels.triton.cards import takes

# The oldest version that every kernel was compiled with. 3.3 takes formulas' conditional expressions for branches.
LEAST_VERSION = "3.5"


def _is_installed() -> bool:
    """Whether there is a triton that takes the kernels; importing it to ask would take long."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return TorchVersion(version) >= LEAST_VERSION


IS_INSTALLED = _is_installed()

# Whether Triton's kernels run in its interpreter, on tensors in CPU memory: triton asks once, as it is imported.
IS_INTERPRETED = IS_INSTALLED and os.environ.get("TRITON_INTERPRET") == "1"

# The compute capability of the oldest graphics cards that kernels are compiled for: on older ones Triton has no tensor
# cores for products, nor bfloat16.
LEAST_CAPABILITY = (8, 0)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def kernels(family: str, *tensors: Tensor | None, indices: Tensor | None = None, when_compiling: bool = False) -> Any:
    """The kernels of `torchfromscratch.kernels.triton.<family>`, if they can run, else None.

    `indices` are what they read besides, integers or booleans, which vmap may map alone. Nor may anybody differentiate
    what is computed: kernels have no derivative but the one that a Function states. A compiler gets plain arithmetic,
    which it fuses, but kernels `when_compiling` where that arithmetic would hold larger tensors or move more bytes.
    """
    if (is_compiling() and not when_compiling) or is_differentiating() or not can_run(*tensors) or is_batched(indices):
        return None
    if is_compiling():
        return _import_by_statement(family)
    return importlib.import_module(f"{__name__}.{family}")


def _import_by_statement(family: str) -> Any:
    """The families that compilers get: Dynamo traces statements, and no call of importlib."""
    if family == "attention":
        from torchfromscratch.kernels.triton import attention

        return attention
    from torchfromscratch.kernels.triton import pooling

    return pooling


@functools.cache
def takes_card(index: int) -> bool:
    """Whether Triton's kernels run on this CUDA device: NVIDIA's, of `LEAST_CAPABILITY`, with what Triton launches by.

    For that Triton compiles a helper with the machine's C compiler, which not every image of a system has. A device
    that is not there is that of fake tensors, where nothing is computed.
    """
    if torch.version.hip is not None:
        return False
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return True
    if torch.cuda.get_device_capability(index) < LEAST_CAPABILITY:
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # of whatever kind: no compiler, no header files, no library of the driver
        message = f"Triton cannot launch kernels here, so torch's arithmetic computes layers, more slowly: {error!r}"
        warnings.warn(message, stacklevel=2)
        return False
    return True


def can_run(*tensors: Tensor | None, algorithm: str | None = None) -> bool:
    """Whether Triton's kernels may take these tensors, all real floats, as what they are.

    On "cuda", where the card `takes` them, and on "meta", where nothing is computed but launches can be counted. In CPU
    memory only where Triton's interpreter is on and the caller has chosen "triton", now or for the forward pass
    (`algorithm`). What is exported or traced is plain operations, which run where this package is not, and vmap has no
    rule for kernels.
    """
    if not IS_INTERPRETED and any([tensor is not None and tensor.is_cpu for tensor in tensors]):  # the usual case first
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    if given[0].is_cpu and not IS_INTERPRETED:
        return False
    device = given[0].device
    if not all([tensor.device == device for tensor in given]):
        return False
    if device.type == "cpu":
        is_right_device = IS_INTERPRETED and "triton" in (algorithm, chosen_algorithm())
    else:
        is_right_device = IS_INSTALLED and (device.type == "meta" or (device.type == "cuda" and takes(device.index)))
    if not is_right_device or is_exporting() or is_batched(*given):
        return False
    if is_transforming() if is_compiling() else is_tracing():
        return False
    return all([tensor.dtype in DTYPES for tensor in given])
