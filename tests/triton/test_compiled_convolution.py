"""Convolution's kernels, as they are launched, compile for graphics cards, and multiply on their tensor cores."""

import pytest
import torch

from tests.triton.ahead_of_time import CARDS, Launch, assert_fits, launches
from torchfromscratch.kernels.triton import LEAST_VERSION
from torchfromscratch.kernels.windows import Windows

pytest.importorskip(
    "triton", minversion=LEAST_VERSION, reason="the compiler is Triton's, which not every build of torch brings"
)

from torchfromscratch.kernels.triton import convolution, depthwise  # noqa: F401  defines the operations
from torchfromscratch.kernels.triton.tuning import candidates

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
SLOW = pytest.mark.slow


def convolution_launches(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    *,
    channels: int = 64,
    filters: int = 64,
    stride: int = 1,
    groups: int = 1,
) -> dict[str, list[Launch]]:
    """What the three operations of a 3×3 convolution launch for 32 pictures of 32²."""
    windows = Windows((3, 3), (stride, stride), (1, 1), (1, 1), groups)
    x = torch.empty(32, channels, 32, 32, device="meta", dtype=dtype).to(memory_format=memory_format)
    w = torch.empty(filters, channels // groups, 3, 3, device="meta", dtype=dtype).to(memory_format=memory_format)
    b = torch.empty(filters, device="meta", dtype=dtype)
    g = convolution.empty_output(x, w, b, windows)
    size = [*x.shape[2:]]
    calls = {
        "correlate": (x, w, b, windows),
        "full_convolution": (g, w, windows, size),
        "weight_gradient": (x, g, windows),
    }
    names = {"correlate": "depthwise"} if groups > 1 else {}
    prefix = "depthwise_" if groups > 1 else ""
    return {name: launches(monkeypatch, names.get(name, prefix + name), *args) for name, args in calls.items()}


@pytest.fixture(params=["ieee", "tf32"])
def rounding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How products of float32 are to round."""
    monkeypatch.setattr(convolution, "convolutions_use_tf32", lambda: request.param == "tf32")
    return request.param


@pytest.mark.parametrize("card", CARDS)
def test_a_convolution(card: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each card; the others are slow."""
    (forward,) = convolution_launches(monkeypatch, torch.float16, torch.channels_last)["correlate"]
    assert_fits(card, forward, products=True)


@SLOW
@pytest.mark.parametrize("operation", ["correlate", "full_convolution", "weight_gradient"])
@pytest.mark.parametrize("options", [{}, {"channels": 3}, {"filters": 128, "stride": 2}], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("card", CARDS)
def test_float32(
    card: int,
    memory_format: str,
    options: dict[str, int],
    operation: str,
    rounding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for one in convolution_launches(monkeypatch, torch.float32, FORMATS[memory_format], **options)[operation]:
        assert_fits(card, one, products=rounding == "tf32" and "add_slices" not in one.kernel.__name__)


@SLOW
@pytest.mark.parametrize("operation", ["correlate", "full_convolution", "weight_gradient"])
@pytest.mark.parametrize("options", [{}, {"channels": 3}, {"filters": 128, "stride": 2}], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("card", CARDS)
def test_other_types(
    card: int,
    dtype: torch.dtype,
    memory_format: str,
    options: dict[str, int],
    operation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for one in convolution_launches(monkeypatch, dtype, FORMATS[memory_format], **options)[operation]:
        assert_fits(card, one, products="add_slices" not in one.kernel.__name__)


@SLOW
@pytest.mark.parametrize("candidate", range(1, 5))
@pytest.mark.parametrize("operation", ["correlate", "full_convolution", "weight_gradient"])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("card", CARDS)
def test_what_is_measured_beside_the_rules_tile(
    card: int,
    dtype: torch.dtype,
    memory_format: str,
    operation: str,
    candidate: int,
    rounding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Number 0 is the rule's tile itself, which the tests above compile.

    The others may spill two registers of a thread, as five do: one is taken only where it is measured to be fastest.
    """
    if rounding == "tf32" and dtype != torch.float32:
        pytest.skip("no other type is rounded to TF32")
    monkeypatch.setattr(convolution, "choose", lambda name, shapes, tile, run, like: candidates(tile)[candidate])
    has_products = dtype != torch.float32 or rounding == "tf32"
    for one in convolution_launches(monkeypatch, dtype, FORMATS[memory_format])[operation]:
        is_product = has_products and "add_slices" not in one.kernel.__name__
        assert_fits(card, one, products=is_product, spilled=8)


@SLOW
@pytest.mark.parametrize("operation", ["correlate", "full_convolution", "weight_gradient"])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("card", CARDS)
def test_depthwise(
    card: int, dtype: torch.dtype, memory_format: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in convolution_launches(monkeypatch, dtype, FORMATS[memory_format], groups=64)[operation]:
        assert_fits(card, one)
