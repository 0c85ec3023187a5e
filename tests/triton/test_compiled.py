"""Every kernel, as it is launched, compiles for graphics cards: no spills, no more memory than there is.

Of the layers but convolution. Each operation is compiled for one card and type by default, all others with -m slow.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.triton.ahead_of_time import CARDS, assert_fits, launches
from torchfromscratch.kernels.triton import LEAST_VERSION

pytest.importorskip(
    "triton", minversion=LEAST_VERSION, reason="the compiler is Triton's, which not every build of torch brings"
)

from torchfromscratch.kernels.triton import (  # noqa: F401  define the operations
    attention,
    dropout,
    elementwise,
    embedding,
    normalization,
    pooling,
    softmax,
)
from torchfromscratch.kernels.windows import Windows

WINDOWS = Windows((3, 3), (2, 2), (1, 1), (1, 1))
SPANS = ([1, 1, 1, 1, 0, 1, 32, 16, 3, 2, 1, 2, 32, 16, 3, 2, 1, 0], 0)  # sliding, and counting padding, and dividing


def given(dtype: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """By operation, what it is called with: sizes of networks, and some that no block divides."""

    def of(*shape: int, type: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, device="meta", dtype=type)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    images = of(8, 64, 32, 32)
    images_last = images.to(memory_format=torch.channels_last)
    pooled = of(8, 64, 16, 16)
    winners = of(8, 64, 16, 16, type=torch.int8)
    positions = of(8, 64, 16, 16, type=torch.int64)
    gamma = of(1, 64, 1, 1)
    statistics = of(1, 64, 1, 1, type=wide)
    rows, weight = of(8192, 128), of(1, 128)
    of_rows = of(8192, 1, type=wide)
    row, many = normalization.longest_row(dtype), softmax.longest_row(dtype)
    side = 30 if row > 8 * 30 * 30 else 20
    groups, of_groups = of(16, 4, 8, side, side), of(1, 4, 8, 1, 1)
    logits, classes = of(512, 1000), of(512, 1, type=torch.int64)
    vocabulary = 50257
    indices = of(1024, type=torch.int64)
    long = 3 * 224 * 224
    long_rows = [long, 1, 1, long, long, 1, 1]
    pictures, of_channels = of(2, 16, 20, 64, 64), of(1, 16, 20, 1, 1)
    in_groups = [20 * 64**2, 16, 64**2, 16 * 20 * 64**2, 20 * 64**2, 64**2, 1]
    pictures_last, in_groups_last = pictures, [20 * 64**2, 16, 64**2, 16 * 20 * 64**2, 20, 1, 16 * 20]
    queries = of(4, 4, 100, 32)
    widest = of(2, 4, 100, attention.WIDEST[dtype])
    plain = of(2, 4, 100, 128 if dtype in (torch.float16, torch.bfloat16) else 64)
    wide_bias = of(100, 100, type=wide).expand(2, 4, 100, 100)
    seed, grouped = of(type=torch.int64), of(4, 2, 77, 32)
    bias, logarithms = of(100, 77, type=wide).expand(4, 4, 100, 77), of(4, 4, 100, type=wide)
    wide_logarithms = of(2, 4, 100, type=wide)
    return {
        "elementwise": ("GELU.dx", [rows, rows], []),
        "max_windows": (images, WINDOWS),
        "max_windows in space": (of(2, 8, 9, 17, 17), Windows((2, 3, 3), (2, 2, 2), (0, 1, 1), (1, 1, 1))),
        "max_positions": (images, WINDOWS),
        "max_span_positions": (images, (5, 7), (8, 6)),
        "fetch": (images, winners, WINDOWS),
        "fetch_transpose": (pooled, winners, WINDOWS, (32, 32)),
        "fetch_transpose of positions": (pooled, positions, WINDOWS, (32, 32)),
        "average": (images, *SPANS),
        "average_transpose": (pooled, *SPANS, (32, 32), True),
        "normalize_batch": (images, gamma, gamma, 1e-5),
        "normalize_batch last": (images.to(memory_format=torch.channels_last), gamma, None, 1e-5),
        "batch_gradients": (images, images, gamma, statistics, statistics, 1e-5),
        "batch_gradients last": (
            *[images.to(memory_format=torch.channels_last)] * 2,
            *(gamma, statistics, statistics, 1e-5),
        ),
        "normalize_rows": (rows, weight, weight, 128, 1, 1, 1e-5, True),
        "normalize_rows long": (of(64, row), of(1, row), None, row, 1, 1, 1e-5, False),
        "normalize_rows of groups": (groups, of_groups, of_groups, 8 * side**2, 4, side**2, 1e-5, True),
        "row_gradients": (rows, rows, weight, of_rows, of_rows, 128, 1, 1, 1e-5, True),
        "row_gradients long": (
            *[of(64, row)] * 2,
            *(of(1, row), of(64, 1, type=wide), of(64, 1, type=wide), row, 1, 1, 1e-5, False),
        ),
        "row_gradients of groups": (
            *(groups, groups, of_groups, of(64, type=wide), of(64, type=wide)),
            *(8 * side**2, 4, side**2, 1e-5, True),
        ),
        "normalize_blocks": (of(8, long), of(1, long), None, long_rows, 1e-5, False),
        "normalize_blocks of groups": (pictures, of_channels, of_channels, in_groups, 1e-5, True),
        "normalize_blocks last": (pictures_last, of_channels, of_channels, in_groups_last, 1e-5, True),
        "block_gradients": (
            *(of(64, long), of(64, long), of(1, long), of(64, type=wide), of(64, type=wide)),
            *(long_rows, 1e-5, False),
        ),
        "block_gradients of groups": (
            *(pictures, pictures, of_channels, of(32, type=wide), of(32, type=wide), in_groups, 1e-5, True),
        ),
        "block_gradients last": (
            *(pictures_last, pictures_last, of_channels, of(32, type=wide), of(32, type=wide), in_groups_last),
            *(1e-5, True),
        ),
        "scale_channels": (images, gamma, gamma, statistics, statistics, 1e-5),
        "scale_channels last": (images_last, None, None, None, statistics, 1e-5),
        "channel_gradients": (images, images, gamma, statistics, statistics, 1e-5),
        "channel_gradients last": (images_last, images_last, None, statistics, statistics, 1e-5),
        "normalize_blocks many": (of(9000, long), of(1, long), None, long_rows, 1e-5, True),
        "block_gradients many": (
            *(of(9000, long), of(9000, long), of(1, long), of(9000, type=wide), of(9000, type=wide)),
            *(long_rows, 1e-5, True),
        ),
        "block_gradients one": (
            *(of(1, long), of(1, long), of(1, long), of(1, type=wide), of(1, type=wide), long_rows, 1e-5, True),
        ),
        "normalize_rows one": (of(1, 128), weight, weight, 128, 1, 1, 1e-5, True),
        "row_gradients one": (
            of(1, 128),
            of(1, 128),
            weight,
            of(1, type=wide),
            of(1, type=wide),
            128,
            1,
            1,
            1e-5,
            True,
        ),
        "normalize_batch one": (of(2, 1), of(1, 1), None, 1e-5),
        "batch_gradients one": (of(2, 1), of(2, 1), of(1, 1), of(1, 1, type=wide), of(1, 1, type=wide), 1e-5),
        "scale_channels one": (of(1, 1), of(1, 1), None, of(1, 1, type=wide), of(1, 1, type=wide), 1e-5),
        "channel_gradients one": (of(1, 1), of(1, 1), None, of(1, 1, type=wide), of(1, 1, type=wide), 1e-5),
        "softmax one": (of(1, 1), 1, False),
        "cross_entropy one": (of(1, 1), of(1, 1, type=torch.int64), None, None, 1, 0.9, -100, 0.1),
        "cross_entropy_gradient one": (
            *(of(1, 1, type=wide), of(1, 1), of(1, 1, type=torch.int64), None, None, 1, 0.9, -100, 0.1),
        ),
        "likelihood one": (of(1, 1), of(1, 1, type=torch.int64), None, 1, -100),
        "likelihood_gradient one": (of(1, type=wide), of(1, 1, type=torch.int64), None, of(), [1, 1], 1, -100),
        "look_up_rows one": (of(1, 1), of(1, type=torch.int64)),
        "sum_rows one": (of(1, 1), of(1, type=torch.int64), of(2, type=torch.int64), 1, -1, False),
        "drop_at_random one": (of(1), of(1, type=torch.int64), 0.9),
        "update_running": (of(64), of(64), of(64, type=wide), of(64, type=wide), 0.1, 1.001),
        "softmax": (logits, 1, False),
        "softmax long": (of(16, many), 1, True),
        "softmax_gradient": (logits, logits, 1, True),
        "softmax_gradient long": (*[of(16, many)] * 2, 1, False),
        "cross_entropy": (logits, classes, of(1000), None, 1, 0.9, -100, 0.1),
        "cross_entropy long": (of(16, many), of(16, 1, type=torch.int64), None, None, 1, 1.0, -100, 0.0),
        "cross_entropy_gradient": (of(512, 1, type=wide), logits, classes, None, None, 1, 1.0, -100, 0.0),
        "cross_entropy_gradient long": (
            *(of(16, 1, type=wide), of(16, many), of(16, 1, type=torch.int64)),
            *(of(many), None, 1, 0.9, -100, 0.1),
        ),
        "softmax of blocks": (of(4, vocabulary), 1, True),
        "softmax of interleaved blocks": (of(2, vocabulary, 5), 1, False),
        "softmax_gradient of blocks": (*[of(4, vocabulary)] * 2, 1, True),
        "softmax_gradient of interleaved blocks": (*[of(2, vocabulary, 5)] * 2, 1, False),
        "cross_entropy of blocks": (
            *(of(4, vocabulary), of(4, 1, type=torch.int64), of(vocabulary), None),
            *(1, 0.9, -100, 0.1),
        ),
        "cross_entropy_gradient of blocks": (
            *(of(4, 1, type=wide), of(4, vocabulary), of(4, 1, type=torch.int64), of(vocabulary), None),
            *(1, 0.9, -100, 0.1),
        ),
        "cross_entropy_gradient of interleaved blocks": (
            *(of(2, 1, 5, type=wide), of(2, vocabulary, 5), of(2, 1, 5, type=torch.int64), None),
            *(of(2, vocabulary, 5), 1, 0.9, -100, 0.0),
        ),
        "likelihood": (logits, classes, of(1000), 1, -100),
        "likelihood_gradient": (of(512, 1, type=wide), classes, of(1000), of(), [512, 1000], 1, -100),
        "likelihood_gradient in space": (
            *(of(type=wide), of(8, 1, 64, 64, type=torch.int64), None, of(), [8, 21, 64, 64], 1, -100),
        ),
        "look_up_rows": (of(1000, 768), of(8, 128, type=torch.int64)),
        "look_up_rows of one number": (of(1000, 1), of(8, 128, type=torch.int32)),
        "sum_rows": (of(8, 128, 768), indices, of(1001, type=torch.int64), 1000, -1, False),
        "sum_rows of one number": (of(8, 128, 1), indices, of(1001, type=torch.int64), 1000, 3, True),
        "drop_at_random": (images, of(1, type=torch.int64), 0.9),
        "attend": (queries, grouped, grouped, bias, seed, 0.2, 0.1, False),
        "attend plain": (*[plain] * 3, None, None, 0.2, 0.0, True),
        "attend wide": (*[widest] * 3, wide_bias, seed, 0.2, 0.1, True),
        "attend_gradients": (queries, queries, queries, grouped, grouped, logarithms, bias, seed, 0.2, 0.1, False),
        "attend_gradients plain": (*[plain] * 5, wide_logarithms, None, None, 0.2, 0.0, True),
        "attend_gradients wide": (*[widest] * 5, wide_logarithms, wide_bias, seed, 0.2, 0.1, True),
        "attention_kept": (seed, (4, 4, 100, 77), 0.1),
    }


# Those whose registers are fewest beside what they hold, and what the networks' steps take most time in.
BY_DEFAULT = [
    "elementwise",
    "max_windows",
    "batch_gradients last",
    "row_gradients",
    "row_gradients one",  # whose sizes of 1 Triton hands on as constants
    "cross_entropy",
    "attend_gradients",
]


def assert_all_fit(name: str, dtype: torch.dtype, card: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = launches(monkeypatch, name.partition(" ")[0], *given(dtype)[name])
    assert found
    for launch in found:
        assert_fits(
            card, launch, products=dtype != torch.float32 and name.partition(" ")[0] in ("attend", "attend_gradients")
        )


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_a_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_all_fit(name, torch.float32, 90, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", given(torch.float32))
def test_every_kernel(name: str, dtype: torch.dtype, card: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_all_fit(name, dtype, card, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("name", elementwise.FORMULAS)
def test_every_formula(name: str, card: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect import signature

    kernel = elementwise.FORMULAS[name]
    names = [*signature(kernel.fn).parameters]
    constants = [n for n in names if n in CONSTANTS]
    tensors = [torch.empty(4, 5, device="meta") for n in names if n not in CONSTANTS]
    for launch in launches(monkeypatch, "elementwise", name, tensors, [0.5] * len(constants)):
        assert_fits(card, launch)


CONSTANTS = {"slope", "low", "high", "bound", "value", "beta", "alpha", "scale", "inner", "delta", "eps"}
