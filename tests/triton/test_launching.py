"""Kernels go the whole way from Python to a launch, but for the graphics card: its driver is a stand-in here.

Triton's own code reads the arguments, decides whether it has compiled for such, and launches. Nothing is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from torchfromscratch.kernels.triton import LEAST_VERSION

pytest.importorskip("triton", minversion=LEAST_VERSION, reason="the kernels are written in Triton")

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from tests.triton.ahead_of_time import launches
from tests.triton.test_compiled import given
from torchfromscratch.kernels.triton import (
    attention,
    convolution,
    depthwise,
    dropout,
    elementwise,
    embedding,
    normalization,
    pooling,
    softmax,
)
from torchfromscratch.kernels.triton.launch import LAUNCHERS
from torchfromscratch.kernels.windows import Windows

FAMILIES = (attention, convolution, depthwise, dropout, elementwise, embedding, normalization, pooling, softmax)
MOST_PROGRAMS = 2**31 - 1  # along the first dimension of a grid, on every card
DEVICE = 99  # kernels are kept by device: none that is there gets what is compiled here


@dataclass
class Card:
    """What Triton asks a driver for: an H100, on which every launch is written down."""

    compiled: list[str] = field(default_factory=list)
    programs: list[int] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    device: int = DEVICE

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        self.devices.append(device)
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    @property
    def utils(self) -> SimpleNamespace:
        return SimpleNamespace(
            get_device_properties=lambda device: {"max_shared_mem": 227 * 1024},
            load_binary=lambda name, binary, shared, device: (object(), object(), 32, 0, 1024),
            unload_module=lambda module: None,
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        return lambda *given: self.programs.append(given[0])


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    stand_in = Card()
    monkeypatch.setattr(driver, "_active", stand_in)
    yield stand_in
    for kernel in kernels():
        kernel.device_caches.pop(DEVICE, None)
        kernel.device_caches.pop(DEVICE + 1, None)


def kernels() -> list[Any]:
    return [kernel for family in FAMILIES for kernel in vars(family).values() if isinstance(kernel, JITFunction)]


@pytest.fixture
def uncompiled(card: Card, monkeypatch: pytest.MonkeyPatch) -> Card:
    """What would be compiled is only written down."""

    def write_down(kernel: JITFunction, key: Any, signature: Any, device: int, *_: Any) -> Any:
        card.compiled.append(kernel.fn.__name__)
        made = SimpleNamespace(function=None, packed_metadata=None, launch_metadata=lambda *_: None)
        made.run = card.launcher_cls(None, None)
        kernel.device_caches[device][0][key] = made
        return made

    monkeypatch.setattr(JITFunction, "_do_compile", write_down)
    return card


def convolve(batch: int, channels: int = 64, side: int = 32, groups: int = 1) -> None:
    """The three operations of a 3×3 convolution, channels last."""
    windows = Windows((3, 3), (1, 1), (1, 1), (1, 1), groups)
    x = torch.empty(batch, channels, side, side, device="meta").to(memory_format=torch.channels_last)
    w = torch.empty(channels, channels // groups, 3, 3, device="meta").to(memory_format=torch.channels_last)
    y = convolution.empty_output(x, w, None, windows)
    forward, prefix = ("depthwise", "depthwise_") if groups > 1 else ("correlate", "")
    LAUNCHERS[f"triton_{forward}"](x, w, None, windows)
    LAUNCHERS[f"triton_{prefix}full_convolution"](y, w, windows, [side, side])
    LAUNCHERS[f"triton_{prefix}weight_gradient"](x, y, windows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", given(torch.float32))
def test_every_operation_is_launched(name: str, dtype: torch.dtype, uncompiled: Card) -> None:
    LAUNCHERS[f"triton_{name.partition(' ')[0]}"](*given(dtype)[name])
    assert uncompiled.compiled
    assert all([0 < programs <= MOST_PROGRAMS for programs in uncompiled.programs])


@pytest.mark.parametrize("groups", [1, 64])
def test_convolutions_of_other_batches_and_sizes_seldom_compile_again(groups: int, uncompiled: Card) -> None:
    """Triton tells apart sizes that are 1, that 16 divides, and others; the tile may change once."""
    for batch in (1, 2, 7, 64, 100, 128, 512):
        convolve(batch, groups=groups)
    for side in (28, 30, 31, 33, 56):
        convolve(8, side=side, groups=groups)
    assert len(uncompiled.programs) > 3 * 12
    assert max(map(uncompiled.compiled.count, uncompiled.compiled)) <= 5


def test_large_batches_are_within_the_grid(uncompiled: Card) -> None:
    convolve(2**20)
    convolve(2**20, groups=64)
    LAUNCHERS["triton_elementwise"]("ReLU", [torch.empty(2**33, device="meta")], [])
    LAUNCHERS["triton_max_windows"](
        torch.empty(2**16, 64, 64, 64, device="meta"), Windows((2, 2), (2, 2), (0, 0), (1, 1))
    )
    LAUNCHERS["triton_softmax"](torch.empty(2**26, 64, device="meta"), 1, False)
    assert 2**16 < max(uncompiled.programs) <= MOST_PROGRAMS


def test_the_device_of_the_tensors_launches(uncompiled: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the current one, where there are several."""

    class Guard:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.is_there = tensor.shape == (5, 6)

        def __enter__(self) -> None:
            uncompiled.device += self.is_there

        def __exit__(self, *_: Any) -> None:
            uncompiled.device -= self.is_there

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    LAUNCHERS["triton_elementwise"]("ReLU", [torch.empty(5, 6, device="meta")], [])
    LAUNCHERS["triton_elementwise"]("ReLU", [torch.empty(5, 7, device="meta")], [])
    assert uncompiled.devices == [DEVICE + 1, DEVICE]
    assert uncompiled.compiled == ["elementwise_kernel"] * 2  # each device has kernels of its own


def test_a_kernel_is_compiled_and_launched_once_more_without_compiling(card: Card) -> None:
    for _ in range(2):
        LAUNCHERS["triton_elementwise"]("GELU", [torch.empty(1000, 7, device="meta")], [])
    assert card.programs == [7, 7]
    (kernel,) = elementwise.elementwise_kernel.device_caches[DEVICE][0].values()
    assert kernel.asm["cubin"]


def test_a_view_far_apart_in_memory_is_addressed_in_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every 4096th element: few elements, but offsets beyond 2³¹."""
    view = torch.empty(1, 2, 600, 1000, 4096, device="meta")[..., 0]
    windows = Windows((2, 2), (2, 2), (0, 0), (1, 1))
    (far,) = launches(monkeypatch, "max_windows", view, windows)
    (near,) = launches(monkeypatch, "max_windows", view.contiguous(), windows)
    assert far.constants["wide"]
    assert not near.constants["wide"]
