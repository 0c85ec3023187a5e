"""Run directories: a new one for a new run, and the right one to go on with."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from torchfromscratch.training.checkpoint import BEST, LAST, load_checkpoint
from torchfromscratch.training.config import Config, contradictions, resolve, resolve_resumed
from torchfromscratch.training.errors import UserError
from torchfromscratch.training.monitor import METRICS

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A directory, the settings to train with, and the state to go on from, None at the beginning."""

    directory: Path
    config: Config
    checkpoint: dict[str, Any] | None = None


def new_run(given: Mapping[str, Any], directory: Path | None) -> Run:
    """A run that starts at the beginning, in a directory that holds no other run.

    Args:
        given: the settings that the user gave, None for the others.
        directory: None takes a fresh one in runs/, named after what is trained.

    Raises:
        UserError: if the directory already holds a run, or cannot be made.
    """
    config = resolve(given)
    if directory is None:
        return Run(_fresh_directory(f"{config.dataset}-{config.model}-{config.layers}"), config)
    held = [name for name in (LAST, BEST, METRICS) if (directory / name).exists()]
    if held:
        raise UserError(
            f"{directory} already holds a run ({', '.join(held)}): use --resume to go on with it, or choose "
            "another --run-dir or --name"
        )
    _make(directory)
    return Run(directory, config)


def resumed_run(given: Mapping[str, Any], directory: Path | None) -> Run:
    """A run to go on with; a run that was stopped before its first checkpoint starts at the beginning.

    Args:
        given: the settings that the user gave, None for the others, which are as they were.
        directory: None takes the latest run in runs/ that has the given settings.

    Raises:
        UserError: if the run has other settings, or its checkpoint is damaged.
    """
    if directory is None:
        return _latest_run(given) or new_run(given, None)
    if not (directory / LAST).exists():
        _make(directory)
        return Run(directory, resolve(given))
    checkpoint = load_checkpoint(directory / LAST)
    return Run(directory, resolve_resumed(given, checkpoint["config"], str(directory)), checkpoint)


def _latest_run(given: Mapping[str, Any]) -> Run | None:
    saved = sorted(RUNS.glob(f"*/{LAST}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in saved:
        checkpoint = load_checkpoint(path)
        if not contradictions(given, checkpoint["config"]):
            return Run(path.parent, resolve_resumed(given, checkpoint["config"], str(path.parent)), checkpoint)
    return None


def _fresh_directory(name: str) -> Path:
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    directory = next(RUNS / name for name in names if not (RUNS / name).exists())
    _make(directory)
    return directory


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the run directory {directory}: {error.strerror}; choose another with --run-dir"
        ) from error
