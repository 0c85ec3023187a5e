"""A whole file with other content than a checkpoint's is refused, or changes nothing that could harm."""

import copy
import functools
import importlib
import math
import operator
import os
import pickle
import random
import runpy
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import CAMPAIGN_SEED, TINY, assert_equal
from torchfromscratch.training.checkpoint import load_checkpoint
from torchfromscratch.training.cli import main
from torchfromscratch.training.config import Config
from torchfromscratch.training.contents import NotACheckpoint, require_contents
from torchfromscratch.training.data import Dataset, load_dataset
from torchfromscratch.training.errors import UserError
from torchfromscratch.training.trainer import Trainer

HOSTILE: list[Any] = [None, True, 99, -1, 10**30, math.nan, "x", "", [], [0], {}, {"a": 1}, torch.zeros(3)]
Key = tuple[Any, ...]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in the middle of its second epoch."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_stop_if_asked", stop_after(20))
        patch.setattr(Trainer, "_open_logs", lambda trainer: None)
        with pytest.raises(Stopped):
            main([*TINY, "--run-dir", str(path), "--checkpoint-every", "4"])
    return path


class Stopped(Exception):
    pass


def stop_after(step: int) -> Any:
    def stop(trainer: Trainer) -> None:
        if trainer.step == step:
            raise Stopped

    return stop


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", Path())


def parts(value: Any, key: Key = ()) -> Iterator[Key]:
    """The place of every part of a state, of the outermost as of the innermost."""
    yield key
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield from parts(part, (*key, name))


def changed(state: Any, key: Key, value: Any) -> Any:
    if not key:
        return value
    state = copy.copy(state)
    state[key[0]] = changed(state[key[0]], key[1:], value)
    return state


def taken(state: Any, digits: Dataset) -> Trainer | None:
    """A trainer that took the state up; None if it was refused as it should be."""
    try:
        require_contents(state)
        config = Config(**state["config"])
        return Trainer(config, digits, Path("x"), device=torch.device("cpu"), checkpoint=state)
    except (NotACheckpoint, UserError):
        return None


def free_to_change(key: Key) -> bool:
    """Whether there are other values that a checkpoint may have there, or that have no effect when it is read."""
    return key[0] in ("launch", "conditions") or key[:2] in (
        ("optimizer", "param_groups"),  # rates and the like follow from the settings and the step
        ("scheduler", "_last_lr"),
        ("scheduler", "_step_count"),
        ("config", "data_dir"),
    )


def test_no_part_of_a_checkpoint_can_be_replaced_by_something_else(run: Path, digits: Dataset) -> None:
    state = load_checkpoint(run / "last.pt")
    assert taken(state, digits) is not None
    accepted = []
    for key in parts(state):
        for value in HOSTILE:
            found = state
            for name in key:
                found = found[name]
            if type(value) is not type(found) and taken(changed(state, key, value), digits) is not None:
                accepted.append((key, value))
    # a whole number where a float is does no harm, as an accuracy or a time
    assert not [pair for pair in accepted if not free_to_change(pair[0]) and type(pair[1]) is not int]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ((), 3),
        ((), [1, 2]),
        (("position", "epoch"), 99),
        (("position", "epoch"), -1),
        (("position", "epoch"), 0),
        (("position", "batch"), 16),
        (("position", "batch"), -2),
        (("position", "seconds"), 0.0),
        (("position", "best_accuracy"), 1.5),
        (("rows",), []),
        (("rows", 0, "epoch"), 2),
        (("rows", 0, "test_loss"), math.inf),
        (("config", "epochs"), 0),
        (("config", "model"), "no model"),
        (("config", "model"), "vit"),
        (("config", "batch_size"), 10),
        (("config", "lr"), 0.1),
        (("config", "momentum"), 1.0),
        (("dataset", "classes"), list("9876543210")),
        (("dataset", "digest"), "0"),
        (("model", "conv1.weight"), torch.full((6, 1, 5, 5), math.nan)),
        (("model", "conv1.weight"), torch.zeros(6, 1, 5, 5, dtype=torch.float64)),
        (("model", "conv1.weight"), torch.zeros(1).expand(10**12)),
        (("optimizer", "state", 0, "momentum_buffer"), torch.zeros(6, 1, 5, 4)),
        (("optimizer", "state", 0, "momentum_buffer"), torch.full((6, 1, 5, 5), math.inf)),
        (("optimizer", "state"), {}),
        (("scheduler", "last_epoch"), 3),
        (("scheduler", "base_lrs"), [1.0]),
        (("averages", "sums"), torch.full((3,), math.nan, dtype=torch.float64)),
    ],
    ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else None,
)
def test_a_checkpoint_that_contradicts_itself_is_refused(key: Key, value: Any, run: Path, digits: Dataset) -> None:
    assert taken(changed(load_checkpoint(run / "last.pt"), key, value), digits) is None


def test_rates_that_the_settings_and_the_step_decide_are_not_read(run: Path, digits: Dataset) -> None:
    state = load_checkpoint(run / "last.pt")
    hostile = changed(state, ("optimizer", "param_groups", 0, "lr"), 1e9)
    as_written, as_changed = (taken(each, digits) for each in (state, hostile))
    assert as_written is not None
    assert as_changed is not None
    groups = as_written.optimizer.param_groups
    assert groups[0]["lr"] == state["optimizer"]["param_groups"][0]["lr"]
    assert [{**group, "params": 0} for group in groups] == [
        {**group, "params": 0} for group in as_changed.optimizer.param_groups
    ]


class Program:
    """What a pickle calls when it is read, if anybody lets it."""

    def __init__(self, function: Any = os.mkdir, *arguments: Any) -> None:
        self.call = function, arguments or ("executed",)

    def __reduce__(self) -> Any:
        return self.call


def test_a_file_that_would_run_a_program_is_refused_without_advice_to_run_it(in_directory: Path) -> None:
    torch.save({"config": Program()}, "last.pt")
    with pytest.raises(UserError) as refused:
        load_checkpoint(Path("last.pt"))
    message = str(refused.value)
    assert "can run any program" in message
    assert len(message.splitlines()) == 1
    assert "weights_only" not in message
    assert "safe_globals" not in message
    assert not Path("executed").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_not_opened_either(protocol: int, in_directory: Path) -> None:
    Path("last.pt").write_bytes(pickle.dumps(Program(), protocol))
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(Path("last.pt"))
    assert not Path("executed").exists()


def test_a_file_that_would_grow_when_it_is_read_is_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with zipfile.ZipFile(run / "last.pt") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.namelist():
            packed.writestr(member, whole.read(member))
    with pytest.raises(UserError, match="it is compressed"):
        load_checkpoint(path)


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """The bytes after one of the accidents that happen to files."""
    kind, place, length = draw.randrange(5), draw.randrange(len(whole)), draw.randint(1, 5000)
    if kind == 0:  # cut off
        return whole[:place]
    if kind == 1:  # a bit flipped
        return whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
    if kind == 2:  # a block of zeros
        return whole[:place] + bytes(len(whole[place : place + length])) + whole[place + length :]
    if kind == 3:  # a block lost
        return whole[:place] + whole[place + length :]
    return whole[:place] + draw.randbytes(length) + whole[place:]


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_damaged_files_are_refused_or_hold_what_they_held(trial: int, run: Path, tmp_path: Path) -> None:
    draw, whole, path = (
        random.Random(1000 * CAMPAIGN_SEED + trial),
        (run / "last.pt").read_bytes(),
        tmp_path / "last.pt",
    )
    expected = load_checkpoint(run / "last.pt")
    messages = []
    for _ in range(100):
        path.write_bytes(damaged(whole, draw))
        try:
            state = load_checkpoint(path)
        except UserError as error:
            messages.append(str(error))
        else:
            assert_equal(state, expected, "state")
    assert len(messages) > 50
    assert all(len(message.splitlines()) == 1 for message in messages)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(10))
def test_checkpoints_with_three_parts_replaced_are_refused_or_trained_on(
    trial: int, run: Path, digits: Dataset
) -> None:
    draw, state = random.Random(1000 * CAMPAIGN_SEED + trial), load_checkpoint(run / "last.pt")
    for _ in range(50):
        mutant = state
        for _ in range(3):
            mutant = changed(mutant, draw.choice([key for key in parts(mutant) if key]), draw.choice(HOSTILE))
        trainer = taken(mutant, digits)
        if trainer is not None:
            trainer._train_step(next(trainer.batches.training(trainer.position.epoch, trainer.position.batch)))


HOSTILE_CALLS = [
    (os.system, "mkdir executed"),
    (os.mkdir, "executed"),
    (subprocess.check_call, ["mkdir", "executed"]),
    (subprocess.Popen, ["mkdir", "executed"]),
    (eval, "__import__('os').mkdir('executed')"),
    (exec, "import os; os.mkdir('executed')"),
    (open, "executed", "w"),
    (Path.mkdir, Path("executed")),
    (shutil.copytree, ".", "executed"),
    (runpy.run_path, "program.py"),
    (importlib.import_module, "program"),
    (getattr, Path(), "mkdir"),
    (functools.partial, os.mkdir, "executed"),
    (operator.methodcaller, "mkdir", "executed"),
    (pickle.loads, pickle.dumps(Program())),
    (torch.load, "program.pt"),
]


@pytest.mark.slow
@pytest.mark.parametrize("call", HOSTILE_CALLS, ids=lambda call: f"{call[0].__module__}.{call[0].__qualname__}")
@pytest.mark.parametrize("place", ["whole", "config", "model", "rows", "launch", "bare"])
def test_hostile_files_are_refused_and_not_executed(
    place: str, call: tuple[Any, ...], run: Path, in_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("program.py").write_text("import os; os.mkdir('executed')")
    monkeypatch.syspath_prepend(in_directory)
    state, program = load_checkpoint(run / "last.pt"), Program(*call)
    if place == "bare":
        Path("last.pt").write_bytes(pickle.dumps(program))
    else:
        torch.save(program if place == "whole" else {**state, place: program}, "last.pt")
    with pytest.raises(UserError) as refused:
        load_checkpoint(Path("last.pt"))
    assert len(str(refused.value).splitlines()) == 1
    assert "weights_only" not in str(refused.value)
    assert not Path("executed").exists()
