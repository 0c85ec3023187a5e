"""What depends on shapes alone is computed once: plans are kept, hold no tensor, and are few."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import torchfromscratch.functional as F
from torchfromscratch.kernels.planning import PLANS, cache_plans


def test_a_plan_is_made_once() -> None:
    made = []
    plan = cache_plans(lambda *args: made.append(args) or len(made))
    assert [plan((2, 3), 4), plan((2, 3), 4), plan((2, 3), 5)] == [1, 1, 2]
    for number in range(2 * PLANS):
        plan(number)
    plan((2, 3), 4)
    assert len(made) == 2 + 2 * PLANS + 1  # the oldest is forgotten


def test_what_has_no_hash_is_planned_anew() -> None:
    plan = cache_plans(lambda sizes: sum(sizes))
    assert plan([1, 2]) == 3  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unsupported operand"):
        plan((1, "2"))


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}], ids=str)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_sizes_that_are_symbols(name: str, options: dict[str, Any]) -> None:
    """Of fake tensors outside of a compiler, too."""
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True) as mode:
        x, w = torch.empty(5, 4, 9, 8), torch.empty(4, 4 // options.get("groups", 1), 3, 3)
    x = mode.from_tensor(torch.empty(5, 4, 9, 8), static_shapes=False)
    with mode:
        output = getattr(F, name)(x, w, padding=1, **options)
    expected = getattr(torch.nn.functional, name)(torch.empty(5, 4, 9, 8), torch.empty(w.shape), padding=1, **options)
    assert [int(size) for size in output.shape] == list(expected.shape)


def test_no_tensor_is_kept() -> None:
    x, w = torch.randn(16, 8, 8, 8, requires_grad=True), torch.randn(8, 8, 3, 3, requires_grad=True)
    F.conv2d(x, w, padding=1).sum().backward()
    gc.collect()
    before = sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())
    for batch in range(1, 5):
        torch.autograd.grad(F.conv2d(x[:batch], w, padding=1).sum(), w)
    gc.collect()
    assert sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects()) == before


def test_threads_share_plans() -> None:
    x, w = torch.randn(4, 3, 9, 9), torch.randn(5, 3, 3, 3)
    expected = [F.conv2d(x[:batch], w) for batch in range(1, 5)]
    wrong = []

    def compute() -> None:
        for _ in range(20):
            for batch, output in enumerate(expected, 1):
                if not torch.equal(F.conv2d(x[:batch], w), output):
                    wrong.append(batch)

    threads = [threading.Thread(target=compute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_convolution_takes_few_calls() -> None:
    """Of functions of this package, the second time: 190 and 206 before there were plans."""

    def calls(function: Any) -> tuple[Any, int]:
        count = 0

        def profile(frame: FrameType, event: str, _: Any) -> None:
            nonlocal count
            count += event == "call" and "/torchfromscratch/" in frame.f_code.co_filename

        sys.setprofile(profile)
        try:
            return function(), count
        finally:
            sys.setprofile(None)

    x, w, b = (torch.randn(size, requires_grad=True) for size in ((16, 32, 32, 32), (32, 32, 3, 3), (32,)))
    for _ in range(2):
        output, forward = calls(lambda: F.conv2d(x, w, b, padding=1))
        _, backward = calls(lambda output=output: torch.autograd.grad(output, (x, w, b), torch.ones_like(output)))
    assert forward <= 60
    assert backward <= 80
