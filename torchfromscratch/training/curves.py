"""Finished runs beside each other: a table of what they reached, and their curves in one picture.

Everything comes from the runs' last checkpoints, which hold the settings and each epoch's figures.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from torchfromscratch.errors import UserError
from torchfromscratch.notes.drawing import Drawing
from torchfromscratch.training.checkpoint import LAST, load_checkpoint

LAYERS = {"scratch": "by hand", "torch": "torch.nn"}
COLOURS = {"scratch": "left", "torch": "right"}
ADVICE = "Give the directories of runs by train_cifar.py."
HEADER = (
    "| data | model | layers | epochs | seeds | test accuracy | mean | minutes | on |\n"
    "| --- | --- | --- | --: | --- | --- | --: | --- | --- |"
)

WIDTH, HEIGHT, GAP = 330, 220, 70  # of a panel, and between the two
ACCURACIES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
LOSS_TICKS = 5  # at most


@dataclass(frozen=True)
class Run:
    """A run that trained to its end: its settings, under which conditions, and a row of figures for each epoch."""

    config: dict[str, Any]
    conditions: dict[str, Any]
    rows: list[dict[str, float]]

    @property
    def accuracy(self) -> float:
        """On the test pictures after the last epoch, 0 to 1."""
        return self.rows[-1]["test_accuracy"]

    @property
    def minutes(self) -> float:
        """In training steps, testing and logging not counted."""
        return sum(row["seconds"] for row in self.rows) / 60


def read_run(directory: Path) -> Run:
    """The run in a directory.

    Raises:
        UserError: if there is none, or it has not come to its end.
    """
    if not (directory / LAST).is_file():
        raise UserError(f"there is no run in {directory}. {ADVICE}")
    state = load_checkpoint(directory / LAST, ADVICE)
    config, rows = state["config"], state["rows"]
    if len(rows) < config["epochs"]:
        raise UserError(f"the run in {directory} is at epoch {len(rows)} of {config['epochs']}: let it end first")
    return Run(config, state["conditions"], rows)


def table(runs: Sequence[Run]) -> str:
    """A line of Markdown for all runs that differ in nothing but their seeds."""
    return "\n".join([HEADER, *(_line(alike) for alike in _alike(runs))])


def picture(runs: Sequence[Run]) -> Drawing:
    """Test accuracy and training loss over the epochs, a line for each run, a colour for each kind of layers.

    Raises:
        UserError: if the runs are of several data sets or models, whose accuracies are not to be compared.
    """
    trained = {(run.config["dataset"], run.config["model"]) for run in runs}
    if len(trained) > 1:
        several = ", ".join(f"{model} on {dataset}" for dataset, model in sorted(trained))
        raise UserError(
            f"one picture is of one data set and model, and these runs are of {several}; draw each by itself"
        )
    drawing = Drawing("Test accuracy and training loss over the epochs, by hand and with torch.nn")
    for place, (layers, kind) in enumerate(COLOURS.items()):
        if of_kind := [run for run in runs if run.config["layers"] == layers]:
            drawing.text(place * (WIDTH + GAP), 8, f"{LAYERS[layers]}: {_outcome(of_kind)}", kind)
    _panel(drawing, 40, "test accuracy", [_column(run, "test_accuracy") for run in runs], runs, _accuracy_axis)
    left = 40 + WIDTH + GAP
    _panel(drawing, left, "training loss", [_column(run, "train_loss") for run in runs], runs, _loss_axis)
    return drawing


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups of the same settings but for seeds and directories, in the order of their first ones."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        free = {"seed": None, "data_dir": None, "checkpoint_every": None}
        groups.setdefault(repr({**run.config, **free}), []).append(run)
    return list(groups.values())


def _line(runs: Sequence[Run]) -> str:
    config = runs[0].config
    where = {f"{run.conditions['device']}, threads: {run.conditions['threads']}" for run in runs}
    cells = [
        config["dataset"],
        config["model"],
        LAYERS[config["layers"]],
        config["epochs"],
        _enumerate(str(run.config["seed"]) for run in runs),
        _enumerate(f"{100 * run.accuracy:.2f}" for run in runs) + " %",
        _percent(mean(run.accuracy for run in runs)),
        _enumerate(f"{run.minutes:.1f}" for run in runs),
        "; ".join(sorted(where)),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _panel(
    drawing: Drawing,
    left: float,
    title: str,
    columns: Sequence[Sequence[float]],
    runs: Sequence[Run],
    axis: Callable[[Sequence[float]], tuple[Callable[[float], float], dict[float, str]]],
) -> None:
    """A curve for each column over epochs 1, 2, …; the axis says how high a value stands, 0 to 1, and has the ticks."""
    top, epochs = 64.0, max(map(len, columns))
    height_of, ticks = axis([value for column in columns for value in column])

    def place(epoch: int, value: float) -> tuple[float, float]:
        return left + WIDTH * epoch / epochs, top + HEIGHT * (1 - height_of(value))

    drawing.text(left, top - 18, title, "faint", size=13)
    for value, label in ticks.items():
        height = place(0, value)[1]
        drawing.line([(left, height), (left + WIDTH, height)])
        drawing.text(left - 6, height, label, "faint", "end", 11)
    for epoch in range(0, epochs + 1, max(epochs // 10, 1)):
        drawing.text(place(epoch, 0)[0], top + HEIGHT + 14, str(epoch), "faint", "middle", 11)
    drawing.text(left + WIDTH, top + HEIGHT + 32, "epochs", "faint", "end", 11)
    for run, column in zip(runs, columns, strict=True):
        curve = [place(epoch, value) for epoch, value in enumerate(column, 1)]
        drawing.line(curve, COLOURS[run.config["layers"]], 1.6)


def _accuracy_axis(values: Sequence[float]) -> tuple[Callable[[float], float], dict[float, str]]:
    """By the logarithm of the error: late in a training tenths of a percent can be told apart."""
    below = [tick for tick in ACCURACIES if tick <= min(values)] or [0.0]
    above = [tick for tick in ACCURACIES if tick >= max(values)] or [0.999]
    if below[-1] == above[0]:  # all stand on one tick
        below = [tick for tick in (0.0, *ACCURACIES) if tick < above[0]]
    lowest, highest = math.log(1 - below[-1]), math.log(1 - above[0])
    ticks = [below[-1], *(tick for tick in ACCURACIES if below[-1] < tick < above[0]), above[0]]
    return (
        lambda value: (lowest - math.log(max(1 - value, 1 - above[0]))) / (lowest - highest),
        {tick: f"{100 * tick:g} %" for tick in ticks},
    )


def _loss_axis(values: Sequence[float]) -> tuple[Callable[[float], float], dict[float, str]]:
    """From 0 in round steps up to the largest value."""
    highest = max(values)
    step = next(
        (size for size in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if highest <= LOSS_TICKS * size), highest / LOSS_TICKS
    )
    count = math.ceil(highest / step) or 1
    return lambda value: value / (count * step), {step * tick: f"{step * tick:g}" for tick in range(count + 1)}


def _column(run: Run, name: str) -> list[float]:
    return [row[name] for row in run.rows]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _outcome(runs: Sequence[Run]) -> str:
    """The mean accuracy, of runs that differ in nothing but their seeds."""
    if len(_alike(runs)) > 1:
        return f"{len(runs)} runs of different settings"
    count = "1 run" if len(runs) == 1 else f"mean of {len(runs)} runs"
    return f"{_percent(mean(run.accuracy for run in runs))}, {count}"


def _enumerate(texts: Iterable[str]) -> str:
    return ", ".join(texts)
