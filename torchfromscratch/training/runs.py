"""Run directories: a new one for a new run, and the right one to go on with."""

import shlex
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from torchfromscratch.training.checkpoint import (
    BEST,
    LAST,
    LOG,
    METRICS,
    UNFINISHED,
    load_checkpoint,
    remove_unfinished,
    sync_directory,
    way_out,
)
from torchfromscratch.training.config import Config, contradictions, resolve, resolve_resumed
from torchfromscratch.training.distributed import is_restarted, launch
from torchfromscratch.training.errors import UserError
from torchfromscratch.training.lock import LOCK, Held, directory_lock

RUNS = Path("runs")
MOST_NAMED = 20  # runs in a message


@dataclass(frozen=True)
class Run:
    """A directory, the settings to train with, and the state to go on from, None at the beginning."""

    directory: Path
    config: Config
    checkpoint: dict[str, Any] | None = None


def choose_run(given: Mapping[str, Any], directory: Path | None, *, resume: bool, held: ExitStack) -> Run:
    """The run to train, a new one or one to go on with, in a directory that is locked until `held` is closed.

    Where torchrun starts its processes again after one of them failed, they go on with the run that they were at.

    Args:
        given: the settings that the user gave, None for the others.
        directory: None takes a fresh one in runs/, or the latest with the given settings to go on with.
        resume: whether to go on.

    Raises:
        UserError: as `new_run` and `resumed_run`.
    """
    if resume:
        return resumed_run(given, directory, held)
    if is_restarted() and (interrupted := _of_this_launch(directory)) is not None:
        return resumed_run(given, interrupted, held)
    return new_run(given, directory, held)


def new_run(given: Mapping[str, Any], directory: Path | None, held: ExitStack) -> Run:
    """A run that starts at the beginning, in a directory that holds no other run.

    Raises:
        UserError: if the directory already holds a run, is in use, or cannot be made.
    """
    config = resolve(given)
    if directory is None:
        return Run(_fresh_directory(f"{config.dataset}-{config.model}-{config.layers}", held), config)
    _make(directory)
    held.enter_context(directory_lock(directory))
    remove_unfinished(directory)
    if leftovers := _leftovers(directory):
        raise UserError(
            f"{directory} already holds a run ({', '.join(leftovers)}): use --resume to go on with it, or choose "
            "another --run-dir or --name"
        )
    return Run(directory, config)


def resumed_run(given: Mapping[str, Any], directory: Path | None, held: ExitStack) -> Run:
    """A run to go on with, with the settings that it was begun with.

    Raises:
        UserError: if there is no such run, if it is in use, has other settings, or its checkpoint is damaged.
    """
    directory = _latest(given) if directory is None else directory
    if not (directory / LAST).exists():
        way = way_out(directory / LAST) if (directory / BEST).exists() else _runs_that_are()
        raise UserError(f"there is no run in {directory}, which has no {LAST}. {way}")
    held.enter_context(directory_lock(directory))
    checkpoint = load_checkpoint(directory / LAST)
    remove_unfinished(directory)
    return Run(directory, resolve_resumed(given, checkpoint["config"], str(directory)), checkpoint)


def _latest(given: Mapping[str, Any]) -> Path:
    """The directory of the latest run that has the given settings."""
    saved = _checkpoints()
    for path in saved:
        try:
            settings = load_checkpoint(path)["config"]
        except UserError as error:
            others = [f"--resume --name {shlex.quote(other.parent.name)}" for other in saved if other != path]
            way = f" Others are gone on with by {' or '.join(others[:MOST_NAMED])}." if others else ""
            raise UserError(f"{error}{way}") from error
        if not contradictions(given, settings):
            return path.parent
    asked = " with these settings" if saved else ""
    raise UserError(f"there is no run in {RUNS}{asked} to go on with. {_runs_that_are()}")


def _of_this_launch(directory: Path | None) -> Path | None:
    """The directory of the run that the processes were at before torchrun started them again, if it was begun."""
    candidates = _checkpoints() if directory is None else [directory / LAST]
    for path in candidates:
        with suppress(UserError, OSError):
            if load_checkpoint(path)["launch"] == launch():
                return path.parent
    return None


def _checkpoints() -> list[Path]:
    """The checkpoints of the runs in runs/, the latest first."""
    return sorted(RUNS.glob(f"*/{LAST}"), key=lambda path: path.stat().st_mtime, reverse=True)


def _runs_that_are() -> str:
    names = [path.parent.name for path in _checkpoints()]
    if not names:
        return f"{RUNS.absolute()} holds no run: start one without --resume."
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"The runs in {RUNS}, latest first: {', '.join(names[:MOST_NAMED])}{more}."


def _leftovers(directory: Path) -> list[str]:
    """The files by which a directory holds a run, if it does."""
    named = [name for name in (LAST, BEST, METRICS) if (directory / name).exists()]
    return named + sorted(path.name for path in directory.glob(f"{LOG}*"))[:1]


def _fresh_directory(name: str, held: ExitStack) -> Path:
    """A directory in runs/ that neither holds anything nor is held by another run, with its lock."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    while True:
        directory = RUNS / next(names)
        if not _is_unused(directory):
            continue
        _make(directory)
        with suppress(Held), ExitStack() as lock:
            lock.enter_context(directory_lock(directory))
            if _is_unused(directory):
                remove_unfinished(directory)
                held.enter_context(lock.pop_all())
                return directory


def _is_unused(directory: Path) -> bool:
    """Whether there is nothing in a directory but what a process leaves that is killed before its first checkpoint."""
    if not directory.exists():
        return True
    return directory.is_dir() and all(path.name == LOCK or path.suffix == UNFINISHED for path in directory.iterdir())


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sync_directory(directory.parent)
    except OSError as error:
        raise UserError(
            f"cannot create the run directory {directory}: {error.strerror}; choose another with --run-dir"
        ) from error
