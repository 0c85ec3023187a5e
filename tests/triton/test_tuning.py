"""Measured configurations are remembered, for the same key and conditions, and none is measured without being asked."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torchfromscratch.kernels.triton import tuning

CANDIDATES = [{"warps": 4, "flat": False}, {"warps": 8, "flat": False}, {"warps": 2, "flat": False}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def measure(key: str, conditions: str = "card") -> tuple[dict, list[int]]:
    """The choice, and whose times were taken: 8 warps are the fastest, and 2 cannot be launched."""
    launched: list[int] = []

    def run(candidate: dict) -> None:
        if candidate["warps"] == 2:
            raise RuntimeError("out of shared memory")
        launched.append(candidate["warps"])

    def time(launch: Callable[[], None]) -> float:
        launch()
        return 1 / launched[-1]

    return tuning.fastest(key, CANDIDATES, run, conditions, time), launched


def test_the_fastest_is_measured_once() -> None:
    assert measure("a") == (CANDIDATES[1], [4, 8])
    assert measure("a") == (CANDIDATES[1], [])
    assert measure("b") == (CANDIDATES[1], [4, 8])
    assert measure("a", "another card") == (CANDIDATES[1], [4, 8])


@pytest.mark.parametrize("content", ["", "{", '{"a": {"warps": 16}}'])
def test_a_file_that_does_not_help_is_measured_anew(content: str) -> None:
    file = tuning.cache_file("card")
    file.parent.mkdir()
    file.write_text(content)
    assert measure("a") == (CANDIDATES[1], [4, 8])
    assert measure("a") == (CANDIDATES[1], [])


def test_a_folder_that_cannot_be_written_to_keeps_nothing(folder: Path) -> None:
    (folder / "torchfromscratch").write_text("a file in its place")
    assert measure("a") == (CANDIDATES[1], [4, 8])
    assert measure("a") == (CANDIDATES[1], [4, 8])


def test_nothing_is_measured_on_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHFROMSCRATCH_AUTOTUNE", "1")
    run: Callable[[dict], None] = lambda candidate: pytest.fail("launched")  # noqa: E731
    assert tuning.choose("a", [(2, 3)], CANDIDATES[0], run, torch.empty(2, device="meta")) == CANDIDATES[0]
