"""Blocks are within the shared memory of consumer cards too, which is 99 KiB, and few registers are spilled there."""

from typing import Any

import pytest
import torch

from tests.triton.ahead_of_time import CONSUMER_CARDS, compile_for, launches
from tests.triton.test_compiled import given
from tests.triton.test_compiled_convolution import FORMATS, convolution_launches

pytestmark = pytest.mark.slow

# Bytes of a thread. sm_86 has the registers of sm_80, for which none are spilled, but its code is another: in 180
# kernels 24 bytes of the convolution of three channels were, and 8 of attention's gradients.
FEW = 32


def assert_fits(card: int, found: list[Any]) -> None:
    assert found
    for launch in found:
        compiled = compile_for(card, launch)
        assert compiled.shared <= CONSUMER_CARDS[card], f"{compiled.name} needs {compiled.shared} bytes"
        assert compiled.spilled <= FEW, f"{compiled.name} spills {compiled.spilled} bytes"


@pytest.mark.parametrize("card", CONSUMER_CARDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", given(torch.float32))
def test_layers(name: str, dtype: torch.dtype, card: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_fits(card, launches(monkeypatch, name.partition(" ")[0], *given(dtype)[name]))


@pytest.mark.parametrize("card", CONSUMER_CARDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("channels", [3, 64])
def test_convolutions(
    channels: int, memory_format: str, dtype: torch.dtype, card: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = convolution_launches(monkeypatch, dtype, FORMATS[memory_format], channels=channels)
    for launched in found.values():
        assert_fits(card, launched)
