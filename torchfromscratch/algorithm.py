"""Which algorithm computes a convolution and its gradients: a rule chooses, unless a caller does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torchfromscratch.kernels.convolution.dispatch import ALGORITHMS

__all__ = ["algorithm", "chosen_algorithm"]


class _Choice(threading.local):
    """Each thread's own choice: torch.compile follows it, which it does not for a ContextVar before torch 2.14."""

    def __init__(self) -> None:
        self.algorithm: str | None = None


_choice = _Choice()


@contextmanager
def algorithm(name: str) -> Iterator[None]:
    """Compute every convolution called inside, and its gradients of every order, by one algorithm.

    "reference" is the definition, to be read: it adds up one tap of the kernel after the other. "im2col" multiplies
    the matrix of all windows, "winograd" saves three multiplications of four for 3×3 kernels with stride 1, and
    "fft" multiplies in the frequency domain. The gradients take the algorithm of their forward pass, wherever
    `backward` is called. Also a decorator; nests; what another thread computes is left alone.

    Raises ValueError for an unknown name here, and for a kernel that the algorithm is not made for at its call.

        with torchfromscratch.algorithm("winograd"):
            y = F.conv2d(x, w, padding=1)
    """
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}; choose one of {', '.join(map(repr, ALGORITHMS))}")
    before = _choice.algorithm
    _choice.algorithm = name
    try:
        yield
    finally:
        _choice.algorithm = before


def chosen_algorithm() -> str | None:
    """The caller's choice, or None."""
    return _choice.algorithm
