"""Elementwise kernels compute what their formulas say, in every format, at sizes that no block divides."""

import pytest
import torch

import torchfromscratch.functional as F
from tests.triton.interpreted.spy import called


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 5, 7, 11)])
def test_the_gate_of_relu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, dy = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    if len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    with called("gate"):
        y, pull_back = torch.func.vjp(F.relu, x)
        (dx,) = pull_back(dy)
    assert torch.equal(dx, dy * (x > 0))
    assert torch.equal(y, x.clamp(min=0))


def test_the_gate_lets_nan_through_and_stops_infinity() -> None:
    x = torch.tensor([float("nan"), -1.0, 0.0, 2.0])
    dy = torch.tensor([1.0, float("inf"), float("nan"), 3.0])
    _, pull_back = torch.func.vjp(F.relu, x)
    assert pull_back(dy)[0].tolist() == [1.0, 0.0, 0.0, 3.0]
