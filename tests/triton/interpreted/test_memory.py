"""The watch over memory, which every test here runs under, finds what is wrong with kernels that are wrong."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpreterError


@triton.jit
def beyond_the_end(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at, tl.load(x + at), mask=at < size)


@triton.jit
def not_wholly(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at, tl.load(x + at, mask=at < size), mask=at < size - 1)


@triton.jit
def all_to_one(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at * 0, tl.load(x + at, mask=at < size), mask=at < size)


@triton.jit
def last_of_another(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(x + at, tl.load(x + size - 1), mask=at < size)


@triton.jit
def reads_back(x, y, size, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at, tl.load(x + at, mask=at < size), mask=at < size)
    tl.store(x + at, tl.load(y + at * 0, mask=at < size), mask=at < size)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (beyond_the_end, "memory that is none of the tensors'"),
        (not_wholly, "elements are not written"),
        (all_to_one, "writes an element twice at once"),
        (last_of_another, "writes what another reads"),
        (reads_back, "reads what one of this launch has written"),
    ],
)
def test_it_fails(kernel: Any, message: str) -> None:
    x, y = torch.randn(10), torch.zeros(10)
    with pytest.raises((InterpreterError, AssertionError), match=message):
        kernel[(2,)](x, y, 10, block=8)
