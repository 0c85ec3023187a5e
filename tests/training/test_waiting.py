"""How often training waits for the device: never in a step, once for a report. Meta tensors stand for a GPU's."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchfromscratch.training.config import resolve
from torchfromscratch.training.data import Dataset, Pictures
from torchfromscratch.training.models import MODELS
from torchfromscratch.training.trainer import Trainer

ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "bincount"}
READING = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}


class NoQuestions(TorchDispatchMode):
    """Raises on what only the device can answer, and on every copy to it or from it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        answered = {t.device.type for t in tree_leaves(result) if isinstance(t, Tensor)}
        name = func.overloadpacket.__name__
        copies = name in ("_to_copy", "copy_") and len(given | answered) > 1
        if "meta" in given | answered and (name in ASKING or copies):
            raise AssertionError(f"{func} waits for the device")
        return result


class NoNumbers(TorchFunctionMode):
    """Raises on a tensor on the device that is made of Python's numbers: it is copied there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ in ("tensor", "as_tensor", "asarray", "new_tensor") and result.device.type == "meta":
            raise AssertionError(f"{func.__name__} waits for the device")
        return result


@contextmanager
def no_waiting() -> Iterator[None]:
    with NoNumbers(), NoQuestions():
        yield


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: x.add_(torch.tensor([1.0, 2.0], device=x.device)),
        lambda x: x * torch.as_tensor(2.0, device=x.device),
        lambda x: x + torch.tensor([1.0, 2.0]).to(x.device),
        lambda x: x.copy_(torch.ones(2)),
    ],
    ids=["item", "bool", "a mask as an index", "nonzero", "cpu", "numbers", "a number", "to", "copy"],
)
def test_what_waits_is_noticed(wait: Any) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), no_waiting():
        wait(torch.ones(2, device="meta"))


def trainer(model: str, layers: str, device: str, directory: Path, **settings: Any) -> Trainer:
    """At the beginning of a training with every recipe's idea, on pictures that do not matter."""
    ideas = {"crop_padding": 1, "crop_fill": "reflect", "flip": "alternating", "lookahead": True, "norm_bias_lr": 2.0}
    ideas |= {"label_smoothing": 0.1, "dataset": "digits", "batch_size": 4}
    pictures = Pictures(torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8), torch.arange(24) % 3)
    config = resolve({**ideas, "model": model, "layers": layers, **settings})
    return Trainer(config, Dataset(pictures, pictures, list("abc")), directory, device=torch.device(device))


@pytest.mark.parametrize(
    ("model", "optimizer", "layers"),
    [*[(model, "sgd", "scratch") for model in MODELS], ("vit", "adamw", "scratch"), ("lenet5", "adam", "torch")],
)
def test_a_step_does_not_wait_for_the_device(
    model: str, optimizer: str, layers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does making its batch, but for an epoch's first, before which all that is random is drawn and copied."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())  # which knows no meta tensors
    training = trainer(model, layers, "meta", tmp_path, optimizer=optimizer)
    batches = training.batches.training(0)
    training._train_step(next(batches))
    with no_waiting():
        for batch in batches:
            training.position.batch += 1
            training._train_step(batch)
    assert training.step == 5


class Reads(TorchFunctionMode):
    """Counts what brings a tensor's numbers into Python."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in READING:
            self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_a_report_reads_the_device_once(tmp_path: Path, undrawn: None) -> None:
    training = trainer("smallvgg-bn", "scratch", "cpu", tmp_path)
    training._open_logs()
    training._train_step(next(training.batches.training(0)))
    training.position.batch, training.position.seconds = 1, 1.0
    training.progress = type("Silent", (), {"describe": lambda *arguments: None})()
    with Reads() as reads:
        training._report(**training._read_report())
    assert reads.counts == {"tolist": 1}
    training.monitor.close()
