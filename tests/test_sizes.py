"""Sizes that no memory and no 64-bit integer holds: errors of torch's type, at once, not after a loop over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests import lacks
from torchfromscratch import functional as F

X = {dims: torch.ones(1, 1, *[4] * dims) for dims in (1, 2, 3)}
HUGE = 2**62

OVERFLOWS: dict[str, Callable[[Any], Any]] = {
    **{
        f"adaptive_{kind}_pool{dims}d": lambda F, kind=kind, dims=dims: getattr(F, f"adaptive_{kind}_pool{dims}d")(
            X[dims], HUGE
        )
        for kind in ("avg", "max")
        for dims in (1, 2, 3)
    },
    "adaptive_avg_pool1d more than memory": lambda F: F.adaptive_avg_pool1d(X[1], 2**44),
    "adaptive_max_pool1d more than memory": lambda F: F.adaptive_max_pool1d(X[1], 2**44),
    "adaptive_avg_pool1d no integer": lambda F: F.adaptive_avg_pool1d(X[1], 2**70),
    "max_pool1d no integer": lambda F: F.max_pool1d(X[1], 2**70),
    "avg_pool1d no integer": lambda F: F.avg_pool1d(X[1], 2, 2**70),
    "conv1d no integer": lambda F: F.conv1d(X[1], X[1], padding=2**70),
    "conv1d": lambda F: F.conv1d(X[1], X[1], padding=HUGE),
    "conv_transpose1d": lambda F: F.conv_transpose1d(X[1], X[1], stride=HUGE),
    "avg_pool1d": lambda F: F.avg_pool1d(X[1], HUGE, 1, HUGE // 2),
    "pad": lambda F: F.pad(X[1], (HUGE, 0), mode="replicate"),
    "interpolate size": lambda F: F.interpolate(X[1], HUGE),
    "interpolate area": lambda F: F.interpolate(X[1], HUGE, mode="area"),
    "interpolate no integer": lambda F: F.interpolate(X[1], 2**70),
    **{
        f"interpolate {mode} {factor}": lambda F, dims=dims, mode=mode, factor=factor: F.interpolate(
            X[dims], scale_factor=factor, mode=mode
        )
        for mode, dims in (("nearest", 1), ("linear", 1), ("bilinear", 2), ("trilinear", 3))
        for factor in (1e20, -1e20, float("nan"), float("inf"), 1e11)
    },
}

# Where older versions raise another error, or answer.
NEWER_ERRORS: dict[str, type[Exception]] = {
    **dict.fromkeys([name for name in OVERFLOWS if name.endswith("pool1d no integer")], ValueError),
    "conv1d no integer": ValueError,
    "avg_pool1d": RuntimeError,
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_sizes_that_overflow(name: str) -> None:
    call = OVERFLOWS[name]
    with pytest.raises((RuntimeError, ValueError, TypeError)) as ours:
        call(F)
    if name in NEWER_ERRORS:
        assert ours.type is NEWER_ERRORS[name]
        lacks.assert_raises(ours.type, lambda: call(torch.nn.functional))
    with pytest.raises((RuntimeError, ValueError, TypeError)) as theirs:
        call(torch.nn.functional)
    assert ours.type is theirs.type
