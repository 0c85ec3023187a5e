"""Sparse matrices, whose products torch hands to MKL where it was built with it."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

HAS_SPARSE_PRODUCTS = torch.backends.mkl.is_available()


def sparse_matrix(begins: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The matrix whose row r has the values begins[r] to begins[r + 1] in the columns of the same numbers."""
    _expect_warning()
    return torch.sparse_csr_tensor(begins, columns, values, shape, check_invariants=False)


@functools.cache
def _expect_warning() -> None:
    """torch says once that support of sparse matrices is in beta state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = torch.zeros(1, dtype=torch.int64)
        torch.sparse_csr_tensor(none, none[:0], torch.zeros(0), (0, 0), check_invariants=False)
