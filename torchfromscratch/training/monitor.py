"""What a run leaves behind to look at: its TensorBoard logs."""

import io
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from torchfromscratch.training.checkpoint import LOG
from torchfromscratch.training.config import Config
from torchfromscratch.training.data import Dataset
from torchfromscratch.training.evaluation import CONFIDENCES, Evaluation, Mistake

FEATURE_MAPS_SHOWN = 64
SMALLEST_WIDTH = 400  # pixels, of a grid of pictures
LARGEST_MATRIX_WITH_NUMBERS = 20  # classes; beyond, the numbers would overlap
LARGEST_MATRIX_IN_A_CARD = 10  # classes
LARGEST_MATRIX = 50  # classes; beyond, neither cells nor names could be told apart
LONGEST_NAME = 24  # characters of a class's name, that it fits beside the matrix
CAPTION_WIDTH = 24  # characters over a mistake, two inches of them
LARGEST_SIDE = 256  # pixels of each picture that is drawn; a grid of 64 with more would take gigabytes

# What belongs together in one chart, so that it shows where training gets better and testing does not.
CHARTS = {
    "training beside test": {
        metric: ["Multiline", [f"^{metric}/train$", f"^{metric}/test$"]] for metric in ("accuracy", "loss")
    }
}


class Monitor:
    """Writes a run's logs; only the main process has one.

    Args:
        run_dir: where the logs go; it exists.
        config: the run's settings.
        dataset: what is trained on.
        step: optimiser steps that a resumed run has behind it; TensorBoard discards anything later
            that was logged before the run was cut off.
    """

    def __init__(self, run_dir: Path, config: Config, dataset: Dataset, step: int) -> None:
        self.config = config
        self.dataset = dataset
        self.writer, self.log_path = _open_last_writer(run_dir, purge_step=step + 1)

    def begin(self, model: torch.nn.Module, images: Tensor) -> None:
        """Logs what does not change: settings, charts and the graph, traced with images (N, C, H, W)."""
        table = "\n".join(f"| {name} | {value} |" for name, value in asdict(self.config).items())
        self.writer.add_text("configuration", f"| setting | value |\n| --- | --- |\n{table}", 0)
        self.writer.add_custom_scalars(CHARTS)
        with _traceable():
            self.writer.add_graph(model, images)
        self.writer.flush()

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars after an optimiser step."""
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, step)

    def gradients(self, step: int, model: torch.nn.Module) -> None:
        """Logs histograms of the last gradients."""
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                self.writer.add_histogram(f"gradients/{name}", weight.grad, step)

    def epoch(self, step: int, row: Mapping[str, Any], model: torch.nn.Module) -> None:
        """Logs an epoch's curves, and histograms of the weights."""
        for metric in ("loss", "accuracy"):
            for part in ("train", "test"):
                self.writer.add_scalar(f"{metric}/{part}", row[f"{part}_{metric}"], step)
        self.writer.add_scalar("images_per_second", row["images_per_second"], step)
        self.writer.add_scalar("data_wait_share", row["data_wait_share"], step)
        for name, weight in model.named_parameters():
            self.writer.add_histogram(f"weights/{name}", weight, step)

    def pictures(self, step: int, model: torch.nn.Module, image: Tensor, evaluation: Evaluation) -> None:
        """Logs what the network looks for, what it sees in the first test picture, (1, C, H, W), and where it errs."""
        convolutions = [(name, layer) for name, layer in _layers(model) if isinstance(layer, torch.nn.Conv2d)]
        for name, layer in convolutions[:1]:
            self.writer.add_image(f"filters/{name}", filter_grid(layer.weight.detach()), step)
        self.writer.add_image("feature_maps/picture", _grid(self.dataset.test.images[:1].float()), step)
        for name, maps in feature_maps(model, dict(convolutions), image).items():
            self.writer.add_image(f"feature_maps/{name}", _grid(maps[:FEATURE_MAPS_SHOWN, None]), step)
        self.writer.add_figure("confusion_matrix", confusion_figure(evaluation, self.dataset.classes), step)
        self.writer.add_figure("mistakes", mistakes_figure(evaluation.mistakes, self.dataset), step)
        for label in _most_confused(evaluation.confusion):
            tag = f"precision_recall/{_printable(self.dataset.classes[label])}"
            tp, fp, tn, fn, precision, recall = precision_recall(evaluation.confidences[label])
            self.writer.add_pr_curve_raw(tag, tp, fp, tn, fn, precision, recall, step, CONFIDENCES)

    def finish(self, step: int, row: Mapping[str, Any], best_accuracy: float) -> None:
        """Logs the settings with what they led to, for TensorBoard's comparison of runs."""
        settings = {name: _in_words(name, value) for name, value in asdict(self.config).items()}
        outcome = {
            "final/test_accuracy": row["test_accuracy"],
            "final/test_loss": row["test_loss"],
            "final/best_test_accuracy": best_accuracy,
        }
        # add_hparams would open a file of its own, whose lines a resumed run could not take back.
        for description in hparams(settings, outcome):
            self.writer.file_writer.add_summary(description)  # type: ignore[attr-defined]
        for tag, value in outcome.items():
            self.writer.add_scalar(tag, value, step)

    def flush(self) -> None:
        """Puts on disk all that was logged, as must be done before a checkpoint says so."""
        self.writer.flush()
        with self.log_path.open("rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        self.writer.close()


def gradient_norms(model: torch.nn.Module) -> dict[str, Tensor]:
    """The norm of each layer's gradient, by its tag; numbers that still lie on the device."""
    gradients = {
        f"gradient_norm/{name}": [weight.grad for weight in layer.parameters(recurse=False) if weight.grad is not None]
        for name, layer in _layers(model)
    }
    return {tag: get_total_norm(of_layer) for tag, of_layer in gradients.items() if of_layer}


def _open_last_writer(run_dir: Path, purge_step: int) -> tuple[SummaryWriter, Path]:
    """A writer and its file, which TensorBoard reads after all others there, so that it discards from those alone.

    It reads them in the order of their names, which begin with the time in seconds and end with the process's number.
    """
    others = max((path.name for path in run_dir.glob(f"{LOG}*")), default="")
    while True:
        writer = SummaryWriter(run_dir, purge_step=purge_step)
        path = Path(writer.file_writer.event_writer._file_name)  # type: ignore[attr-defined]
        if path.name > others or not _is_of_this_second(others):
            return writer, path
        writer.close()
        path.unlink()
        time.sleep(0.1)


def _is_of_this_second(name: str) -> bool:
    second = name.removeprefix(LOG).split(".")[0]
    return second.isdecimal() and abs(int(second) - time.time()) < 2


@contextmanager
def _traceable() -> Iterator[None]:
    """What TensorBoard's add_graph needs around it: it traces with torch.jit, and prints whatever goes wrong."""
    fused = torch.backends.mha.get_fastpath_enabled()
    # As one fused kernel, torch.nn's transformer layers cannot be traced, nor would their graph show anything.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of torch.jit's age, and of Python code in forward
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def filter_grid(weight: Tensor) -> Tensor:
    """Convolution kernels (O, I, kH, kW) as a picture: in colour if they look at colours."""
    return _grid(weight.float() if weight.shape[1] == 3 else weight.float().mean(1, keepdim=True))


@torch.no_grad()
def feature_maps(model: torch.nn.Module, layers: Mapping[str, torch.nn.Module], image: Tensor) -> dict[str, Tensor]:
    """What each of the layers makes of an image (1, C, H, W): its output without the batch, by its name."""
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda layer, input, output: maps.update({name: output[0].float().cpu()})

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        model.forward(image)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def confusion_figure(evaluation: Evaluation, classes: list[str]) -> Figure:
    """The confusion matrix, a row for each true class; of many classes, those that are confused most.

    A cell's colour is its share of the row's pictures. TensorBoard shrinks a figure to a card of about 370×215 pixels,
    which this one's shape fills, and where its texts can still be read as long as the classes are few.
    """
    shown = _most_confused(evaluation.confusion)
    counts = evaluation.confusion[shown][:, shown]
    shares = (counts / evaluation.confusion[shown].sum(1, keepdim=True).clamp(min=1)).numpy()
    few = len(shown) <= LARGEST_MATRIX_IN_A_CARD
    names = [_drawable(classes[label], LONGEST_NAME // 2 if few else LONGEST_NAME) for label in shown]
    height = 4.3 if few else 1.5 + 0.28 * len(shown)
    size = 13 if few else 9
    figure = Figure(figsize=(max(height, 7.4), height), layout="constrained")
    if len(shown) < len(classes):
        figure.suptitle(f"the {len(shown)} of {len(classes):,} classes with the most mistakes")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    long_names = max(map(len, names)) > 3
    axes.set_xticks(range(len(shown)), names, rotation=90 if long_names else 0, fontsize=size)
    axes.set_yticks(range(len(shown)), names, fontsize=size)
    axes.set_xlabel("predicted", fontsize=size)
    axes.set_ylabel("true", fontsize=size)
    if len(shown) <= LARGEST_MATRIX_WITH_NUMBERS:
        for row, column in counts.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=size)
    return figure


def mistakes_figure(mistakes: list[Mistake], dataset: Dataset) -> Figure:
    """The mistakes as pictures, each with what the network saw, how sure it was, and what is true."""
    columns = min(max(len(mistakes), 1), 4)
    rows = -(-max(len(mistakes), 1) // columns)
    figure = Figure(figsize=(2 * columns, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    if not mistakes:
        panels[0].text(0.5, 0.5, f"all {len(dataset.test):,}\ntest pictures\nare right", ha="center", va="center")
    for axes, mistake in zip(panels, mistakes, strict=False):
        picture = _shrunk(dataset.test.images[mistake.position]).permute(1, 2, 0).numpy()
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        predicted = _drawable(dataset.classes[mistake.predicted])
        truth = _drawable(dataset.classes[int(dataset.test.labels[mistake.position])])
        # Rounded down: who errs is not 100 % sure.
        sure = f"{int(100 * mistake.confidence)} % sure;".replace(" ", "\N{NO-BREAK SPACE}")
        caption = fill(f"predicted {predicted}, {sure} is {truth}", CAPTION_WIDTH, break_long_words=False)
        axes.set_title(caption, fontsize=10)
    return figure


def precision_recall(confidences: Tensor) -> tuple[Tensor, ...]:
    """What an answer "it is this class" is worth if it is given from some confidence on, for each such threshold.

    Args:
        confidences: (2, CONFIDENCES), of one class, as `Evaluation` has them.

    Returns:
        True positives, false positives, true negatives, false negatives, precision and recall, (CONFIDENCES,) each.
        Where no answer is that sure, none is wrong, and the precision is 1.
    """
    negatives, positives = confidences.sum(1)
    false_positives, true_positives = confidences.flip(1).cumsum(1).flip(1)
    precision = (true_positives / (true_positives + false_positives)).nan_to_num(1.0)
    recall = (true_positives / positives).nan_to_num(0.0)
    counts = (true_positives, false_positives, negatives - false_positives, positives - true_positives)
    return (*counts, precision, recall)


def _most_confused(confusion: Tensor) -> list[int]:
    """The classes to draw, in their order: all, or those with the most mistakes in their rows and columns."""
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    return sorted(mistakes.topk(min(len(mistakes), LARGEST_MATRIX)).indices.tolist())


def _drawable(name: str, longest: int = LONGEST_NAME) -> str:
    """A class's name as matplotlib draws it as text: dollars stand for themselves, and it is not too long."""
    text = _printable(name)
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return short.replace("$", r"\$")


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def _shrunk(pictures: Tensor) -> Tensor:
    """Pictures (..., H, W), of larger ones only some of the pixels."""
    every = -(-max(pictures.shape[-2:]) // LARGEST_SIDE)
    return pictures[..., ::every, ::every]


def _in_words(setting: str, value: Any) -> Any:
    """A setting as TensorBoard's table shows it best: what is off is "no", where it would write 0.0000."""
    if value is True:
        return "yes"
    is_off = value in (None, 0) and setting != "seed"
    return "no" if is_off else value


def _layers(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """The modules that hold parameters themselves, with their names."""
    return [(name, layer) for name, layer in model.named_modules() if any(True for _ in layer.parameters(False))]


def _grid(pictures: Tensor) -> Tensor:
    """Pictures (N, C, H, W) side by side, each in its own full contrast, enlarged until they can be seen."""
    grid = make_grid(_shrunk(pictures), normalize=True, scale_each=True, padding=1)
    times = -(-SMALLEST_WIDTH // grid.shape[2])
    return grid.repeat_interleave(times, 1).repeat_interleave(times, 2)
