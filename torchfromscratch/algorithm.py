"""Which algorithm computes a convolution and its gradients: a rule chooses, unless a caller does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torchfromscratch.kernels.choice import choice
from torchfromscratch.kernels.convolution.dispatch import ALGORITHMS


@contextmanager
def algorithm(name: str) -> Iterator[None]:
    """Compute every convolution called inside, and its gradients of every order, by one algorithm.

    "reference" is the definition, to be read: it adds up one tap of the kernel after the other. "im2col" multiplies
    the matrix of all windows, "winograd" saves three multiplications of four for 3×3 kernels with stride 1, and
    "fft" multiplies in the frequency domain. "triton" takes kernels for GPUs, for all layers that have one, and in CPU
    memory where Triton's interpreter is on (TRITON_INTERPRET=1). The gradients take the algorithm of their forward
    pass, wherever `backward` is called. Also a decorator; nests; what another thread computes is left alone.

    Raises ValueError for an unknown name here, and for a kernel that the algorithm is not made for at its call.

        with torchfromscratch.algorithm("winograd"):
            y = F.conv2d(x, w, padding=1)
    """
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}; choose one of {', '.join(map(repr, ALGORITHMS))}")
    before = choice.algorithm
    choice.algorithm = name
    try:
        yield
    finally:
        choice.algorithm = before
