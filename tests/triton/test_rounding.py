"""Products of float32 round on CUDA as the flag of torch.nn's layer says: cuDNN's for convolutions."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import torchfromscratch.functional as F
from tests.triton.ahead_of_time import launches
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.precision import convolutions_use_tf32, products_as_of_convolutions
from torchfromscratch.kernels.triton import LEAST_VERSION
from torchfromscratch.kernels.windows import Windows


@pytest.fixture(params=[True, False], ids=["tf32", "ieee"])
def allowed(request: pytest.FixtureRequest) -> Iterator[bool]:
    """torch.backends.cudnn.allow_tf32; torch's own tests, which others here import, forbid to set it but so."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=request.param):
        yield request.param


def test_convolutions_follow_cudnns_flag(allowed: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    assert convolutions_use_tf32() == allowed
    with products_as_of_convolutions():
        assert torch.backends.cuda.matmul.allow_tf32 == allowed
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_what_the_caller_has_set_is_given_back(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    with products_as_of_convolutions():
        pass
    assert torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision(before)


def test_of_threads_that_overlap_the_last_gives_back() -> None:
    """The backward passes on two cards run side by side, and end in the order in which they began."""
    before = torch.get_float32_matmul_precision()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        first, second = products_as_of_convolutions(), products_as_of_convolutions()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.backends.cuda.matmul.allow_tf32
        second.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has the one flag")
def test_the_flag_of_an_operator_goes_before_that_of_all() -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        for name in ("ieee", "tf32"):
            torch.backends.cudnn.conv.fp32_precision = name
            assert convolutions_use_tf32() == (name == "tf32")
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_kernels_are_told(allowed: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", minversion=LEAST_VERSION, reason="the kernels are written in Triton")
    from torchfromscratch.kernels.triton import convolution

    x, w = torch.empty(2, 3, 8, device="meta", dtype=dtype), torch.empty(4, 3, 3, device="meta", dtype=dtype)
    windows = Windows((3,), (1,), (1,), (1,))
    g = convolution.empty_output(x, w, None, windows)
    told = [
        *launches(monkeypatch, "correlate", x, w, None, windows),
        *launches(monkeypatch, "full_convolution", g, w, windows, [8]),
        *launches(monkeypatch, "weight_gradient", x, g, windows)[:1],
    ]
    expected = "tf32" if allowed and dtype == torch.float32 else "ieee"
    assert {launch.constants["precision"] for launch in told} == {expected}


class Rounding(TorchDispatchMode):
    """Whether products of matrices that run inside may round to TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.flags: set[bool] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
            self.flags.add(torch.backends.cuda.matmul.allow_tf32)
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(torch.__version__ < "2.14", reason="views of fake CUDA tensors ask for a driver there")
def test_matrices_of_windows_follow_it_where_there_is_no_triton(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "IS_INSTALLED", False)
    with FakeTensorMode(), torch.no_grad(), Rounding() as rounding:
        x, w = torch.empty(2, 3, 8, 8, device="cuda"), torch.empty(4, 3, 3, 3, device="cuda")
        F.conv2d(x, w)
        F.conv_transpose2d(F.conv2d(x, w), w)
    assert rounding.flags == {allowed}
