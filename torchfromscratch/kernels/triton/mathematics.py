"""Functions of one float32 or float64, rounded as CUDA's library rounds them: Triton's own `exp` and `log` round more.

The library is machine code for a GPU. Triton's interpreter, which computes with NumPy's arrays, gets NumPy's functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from torchfromscratch.kernels.triton import IS_INTERPRETED

if IS_INTERPRETED:
    import numpy
    from triton.runtime.interpreter import TensorHandle

    def _of_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
        def of_tensor(x: Any) -> Any:
            with numpy.errstate(all="ignore"):
                values = numpy.asarray(function(x.handle.data), x.handle.data.dtype)
            return tl.core.tensor(TensorHandle(values, x.handle.dtype), x.type)

        return of_tensor

    erf = _of_numpy(numpy.vectorize(math.erf))
    exp, expm1, log, log1p, tanh = map(_of_numpy, (numpy.exp, numpy.expm1, numpy.log, numpy.log1p, numpy.tanh))
else:
    from triton.language.extra.libdevice import erf, exp, expm1, log, log1p, tanh  # type: ignore[no-redef]

__all__ = ["erf", "exp", "expm1", "log", "log1p", "sigmoid", "tanh", "wide"]


@triton.jit
def wide(x):
    """x in float32, if its type is narrower."""
    return x.to(tl.float32) if x.dtype.primitive_bitwidth < 32 else x


@triton.jit
def sigmoid(x):
    return 1 / (1 + exp(-x))
