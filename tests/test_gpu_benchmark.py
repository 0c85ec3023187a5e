"""The benchmark of a GPU goes its whole way on a CPU, with small shapes and with stand-ins for what only CUDA has."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from torchfromscratch import benchmark, gpu_benchmark
from torchfromscratch.benchmark import OURS, THEIRS, Work, milliseconds
from torchfromscratch.gpu_benchmark import PRECISIONS, Card, Sizes, gpu_works, least_milliseconds, measure_card, report
from torchfromscratch.kernels.precision import convolutions_use_tf32
from torchfromscratch.kernels.triton import IS_INSTALLED

SMALL = Sizes(smallvgg=2, resnet18=1, vit=1, batch=2, channels=8, side=6, tokens=8, classes=5, copied=2**12, matrix=16)
CPU = torch.device("cpu")
CARD = Card(3e12, dict.fromkeys(PRECISIONS, 5e14))
NAMES = [work.name for work in gpu_works(SMALL)]
SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"

# Of the training steps, a network in each precision; the others are slow.
BY_DEFAULT = (
    "SmallVGG, 2 pictures, float16, channels last, compiled",
    "ResNet-18, 1 pictures, tf32, channels last",
    "ViT, 1 pictures, float32, contiguous",
)


def named(name: str) -> Work:
    return next(work for work in gpu_works(SMALL) if work.name == name)


@pytest.fixture(autouse=True)
def _nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_benchmark, "compile_network", lambda network: network)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * ("pictures" in name and name not in BY_DEFAULT)) for name in NAMES],
)
def test_every_work_is_measured(name: str) -> None:
    results = gpu_benchmark.measure_beside(CARD, named(name), CPU, repeats=1, seconds=0)
    assert [result.contender for result in results] == [OURS, THEIRS]
    assert all(result.measured > 0 for result in results)
    is_cast = "pictures" in name and "float16" in name
    assert all((result.share is None) == (is_cast or not IS_INSTALLED) for result in results)


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_bars_are_those_of_steps_that_are_not_compiled() -> None:
    barred = [work.name for work in gpu_works(SMALL) if work.bar == 1.3]
    assert len(barred) == 12
    assert all(("SmallVGG" in name or "ResNet-18" in name) and "compiled" not in name for name in barred)


@pytest.mark.parametrize("name", PRECISIONS)
def test_precisions_are_set_and_given_back(name: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with gpu_benchmark.precision(name):
        assert torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
        assert convolutions_use_tf32() == (name == "tf32")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_autocast_computes_in_float16() -> None:
    seen = []
    gpu_benchmark.in_precision("float16", CPU, lambda: seen.append(torch.ones(2, 2) @ torch.ones(2, 2)))()
    gpu_benchmark.in_precision("tf32", CPU, lambda: seen.append(torch.ones(2, 2) @ torch.ones(2, 2)))()
    assert [product.dtype for product in seen] == [torch.float16, torch.float32]


def test_a_card_is_measured_by_a_copy_and_by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_benchmark, "milliseconds", lambda step, device: step() is None or 2.0)
    card = measure_card(CPU, SMALL)
    assert card.bandwidth == 2 * 4 * 2**12 / 2e-3
    assert card.products == dict.fromkeys(PRECISIONS, 2 * 16**3 / 2e-3)


@pytest.mark.skipif(not IS_INSTALLED, reason="kernels in Triton are counted")
def test_the_roofline_is_what_takes_longer() -> None:
    """ReLU reads and writes 4 bytes an element; a linear layer multiplies and adds."""
    elements = 2 * 8 * 6 * 6
    relu = least_milliseconds(named("ReLU, float32, forward"), Card(1e6, CARD.products))
    assert relu == pytest.approx(1e3 * 2 * 4 * elements / 1e6)
    linear = least_milliseconds(named("linear, float32, forward"), Card(1e30, dict.fromkeys(PRECISIONS, 1e6)))
    assert linear == pytest.approx(1e3 * 2 * (2 * 8) * 64 * 64 / 1e6)


class Event:
    """A CUDA event beside a clock that each step moves by 3 ms."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.time = Event.now

    def elapsed_time(self, end: "Event") -> float:
        return end.time - self.time


def stand_in_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="a card", total_memory=2**36, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(benchmark, "takes", lambda index: True)


def test_events_time_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_cuda(monkeypatch)

    def step() -> None:
        Event.now += 3

    assert milliseconds(step, torch.device("cuda")) == 3


def test_a_report_tells_of_what_fails_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    stand_in_for_cuda(monkeypatch)
    monkeypatch.setattr(gpu_benchmark, "measure_card", lambda device, sizes: CARD)

    def moved_clock() -> None:
        Event.now += 3

    def fail() -> None:
        raise RuntimeError("an illegal memory access\nwas encountered")

    def work(name: str, ours: Callable[[], None]) -> Work:
        return Work(name, lambda device: {OURS: ours, THEIRS: moved_clock}, 1.3)

    works = [work("broken", fail), work("whole", moved_clock)]
    assert report(works, torch.device("cuda"), SMALL, 2, 60, tmp_path) == 1
    printed = capsys.readouterr().out
    assert "| broken | failed: RuntimeError: an illegal memory access was encountered |" in printed
    assert "| whole | by hand | 3 ms | 1.00 | 1.00 to 1.00 | 1.3 |  |" in printed
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["conditions"]["device"] == "a card, 64 GiB, compute capability 9.0"
    assert written["conditions"]["copies"] == "3000 GB/s"
    assert report(works[1:], torch.device("cuda"), SMALL, 2, 60, tmp_path) == 0


def test_the_command_measures_what_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    asked = []
    monkeypatch.setitem(main.__globals__, "report", lambda works, device, *_: asked.append((len(works), device)) or 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--device", "cuda", "--only", "ReLU", "GELU", "--repeats", "3"])
    assert main() == 1
    assert asked == [(8, torch.device("cuda"))]
