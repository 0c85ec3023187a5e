"""A card that kernels are not made for gets torch's arithmetic, and no error."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from torchfromscratch.kernels.triton import IS_INSTALLED, can_run, cards


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    """Of the cards of this machine, before and after."""
    known = (cards._takes, cards._triton_can_launch)
    for answers in known:
        answers.cache_clear()
    yield
    for answers in known:
        answers.cache_clear()


def set_card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)


class Driver:
    """Triton's, which can launch or tells why not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_current_device(self) -> int:
        if self.error:
            raise self.error
        return 0


def set_driver(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    pytest.importorskip("triton", minversion="3.5", reason="asks Triton whether it can launch")
    from triton.runtime import driver as drivers

    monkeypatch.setattr(drivers, "_active", driver)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_cards_with_bfloat16_are_taken(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    set_card(monkeypatch, capability)
    set_driver(monkeypatch, Driver())
    assert cards.takes(0)


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 5)])
def test_older_cards_are_not(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    set_card(monkeypatch, capability)
    assert not cards.takes(0)


def test_nor_are_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    set_card(monkeypatch, (9, 4))
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert not cards.takes(0)


def test_without_a_compiler_there_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    set_card(monkeypatch, (9, 0))
    set_driver(monkeypatch, Driver(RuntimeError("Failed to find C compiler.")))
    with pytest.warns(UserWarning, match="cannot launch kernels here: RuntimeError: Failed to find C compiler"):
        assert not cards.takes(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not cards.takes(1)


def test_where_there_is_no_card_tensors_are_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cards.takes(3)


def test_a_compiler_takes_the_answer_for_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answer(index: int) -> bool:
        asked.append(index)
        return False

    def step(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if cards.takes(x.dim()) else x + 2

    monkeypatch.setattr(cards, "_takes", answer)
    torch.compiler.reset()
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(())) == compiled(torch.zeros(())) == 2
    assert asked == [0]


def test_tensors_of_several_cards_get_torchs_error() -> None:
    """A kernel would read the memory of another card, or end the process."""
    with FakeTensorMode():
        x, near, far = [torch.empty(2, device=device) for device in ("cuda:0", "cuda:0", "cuda:1")]
        assert can_run(x, near) == IS_INSTALLED
        assert not can_run(x, far)
