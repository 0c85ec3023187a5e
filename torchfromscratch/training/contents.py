"""What a checkpoint is: what was read from a file is held against it before anything is believed."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from torchfromscratch.command_line import LARGEST, LARGEST_SEED
from torchfromscratch.training.batches import FILLS, FLIPS
from torchfromscratch.training.config import DATASET_DEFAULTS, OPTIMIZER_DEFAULTS, SMALLEST_FACTOR, Config
from torchfromscratch.training.distributed import DEVICES
from torchfromscratch.training.evaluation import VIEWS
from torchfromscratch.training.models import LAYERS, MODELS
from torchfromscratch.training.optimization import SCHEDULES

CHOICES: dict[str, Collection[str]] = {
    "dataset": DATASET_DEFAULTS,
    "model": MODELS,
    "layers": LAYERS,
    "optimizer": OPTIMIZER_DEFAULTS,
    "schedule": SCHEDULES,
    "flip": FLIPS,
    "crop_fill": FILLS,
    "test_views": VIEWS,
    "device": ("auto", *DEVICES),
}
AT_LEAST_ONE = {"epochs", "batch_size", "image_size"}

# Of each part an example, which says of what kind what is in it must be.
DATASET = {"training": 1, "test": 1, "channels": 1, "image_size": 1, "digest": ""}
CONDITIONS = {"threads": 1, "processes": 1, "device": "", "cpu": "", "torch": ""}
METRICS_OF_AN_EPOCH = {
    "epoch": 1,
    "train_loss": 0.0,
    "train_accuracy": 0.0,
    "test_loss": 0.0,
    "test_accuracy": 0.0,
    "images_per_second": 0.0,
    "data_wait_share": 0.0,
    "seconds": 0.0,
    "lr": 0.0,
}


@dataclass
class Position:
    """Where training is.

    Attributes:
        epoch: epochs completed, their evaluation included.
        batch: batches completed in the epoch after those.
        seconds: spent on those batches.
        waited: seconds of those spent waiting for data.
        best_accuracy: the best on the test pictures so far, 0 to 1.
    """

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    best_accuracy: float = -1.0

    @property
    def data_wait_share(self) -> float:
        return self.waited / self.seconds


class NotACheckpoint(Exception):
    """What was read is no checkpoint, or not this training's; the message says in what it differs."""


def require_contents(state: Any) -> None:
    """Looks at what a file alone can tell: whether all parts are there and agree with each other.

    Raises:
        NotACheckpoint: if not.
    """
    _require(isinstance(state, dict), f"it holds a value of type {type(state).__name__}, not the parts of a training")
    parts = {"model", "optimizer", "scheduler", "scaler", "averages", "lookahead"}
    parts |= {"config", "dataset", "conditions", "position"}
    missing = sorted((parts | {"rows", "launch"}) - set(state))
    _require(not missing, f"it has no {', no '.join(missing)}; another version of torchfromscratch may have written it")
    for name in sorted(parts):
        _require(isinstance(state[name], dict), f"its {name} is of type {type(state[name]).__name__}")
    for name, weight in state["model"].items():
        _require(isinstance(name, str) and isinstance(weight, Tensor), "its model does not consist of named tensors")
    _require_settings(state["config"])
    _require_dataset(state["dataset"])
    require_same_kind(state["conditions"], CONDITIONS, "conditions")
    _require(isinstance(state["launch"], str), "its launch is no text")
    _require_position(state["position"], state["config"]["epochs"])
    _require_rows(state["rows"], state["position"]["epoch"])


def require_same_kind(found: Any, expected: Any, name: str) -> None:
    """Requires of what was found the keys, lengths, types and shapes of what was expected, and finite numbers.

    Raises:
        NotACheckpoint: if they differ; `name` says where.
    """
    if isinstance(expected, Tensor):
        _require(isinstance(found, Tensor), f"{name} is of type {type(found).__name__}, not a tensor")
        fits = (found.shape, found.dtype) == (expected.shape, expected.dtype)
        _require(fits, f"{name} is {_describe(found)}, not {_describe(expected)}")
        _require(bool(found.isfinite().all()), f"{name} is not finite")
    elif isinstance(expected, float):
        _require(_is_number(found) and math.isfinite(found), f"{name} is no finite number")
    else:
        same = isinstance(found, dict) if isinstance(expected, dict) else type(found) is type(expected)
        _require(same, f"{name} is of type {type(found).__name__}, not {type(expected).__name__}")
        if isinstance(expected, dict):
            _require(set(found) == set(expected), f"{name} has other parts than it should")
            for key, value in expected.items():
                require_same_kind(found[key], value, f"{name}.{key}")
        elif isinstance(expected, (list, tuple)):
            _require(len(found) == len(expected), f"{name} has {len(found)} parts, not {len(expected)}")
            for number, pair in enumerate(zip(found, expected, strict=True)):
                require_same_kind(*pair, f"{name}.{number}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotACheckpoint(otherwise)


def _require_settings(settings: Mapping[Any, Any]) -> None:
    """Requires settings that the command would have taken."""
    types = {field.name: field.type for field in fields(Config)}
    differing = sorted(map(str, set(settings) ^ set(types)))
    _require(
        not differing,
        f"its settings differ in {', '.join(differing)}: another version of torchfromscratch wrote it. "
        "Go on with that version, or start a new run",
    )
    for name, value in settings.items():
        _require(_is_setting(name, value, types[name]), f"{value!r:.60} is no {name}")


def _is_setting(name: str, value: Any, type_of_it: Any) -> bool:
    if name in CHOICES:
        return isinstance(value, str) and value in CHOICES[name]
    if type_of_it in (str, bool):
        return isinstance(value, type_of_it)
    if value is None:
        return name == "image_size"
    if not _is_number(value) or (type_of_it is not float and not isinstance(value, int)):
        return False
    if name == "lr":
        return 0 < value <= LARGEST[type(value)]
    if name == "norm_bias_lr":
        return SMALLEST_FACTOR <= value <= LARGEST[type(value)]
    if name == "seed":
        return 0 <= value <= LARGEST_SEED
    if name in ("momentum", "label_smoothing"):
        return 0 <= value < 1
    return (1 if name in AT_LEAST_ONE else 0) <= value <= LARGEST[type(value)]


def _require_dataset(dataset: dict[str, Any]) -> None:
    classes = dataset.get("classes")
    names = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    _require(names, "its data set has no names of classes")
    require_same_kind({name: dataset[name] for name in set(dataset) - {"classes"}}, DATASET, "dataset")


def _require_position(position: dict[str, Any], epochs: int) -> None:
    require_same_kind(position, asdict(Position()), "position")
    _require(0 <= position["epoch"] <= epochs, f"it is in epoch {position['epoch']} of {epochs}")
    _require(position["batch"] >= 0, f"it is at batch {position['batch']}")
    began = position["batch"] > 0
    took_time = position["seconds"] > 0 if began else position["seconds"] == 0
    _require(took_time and 0 <= position["waited"] <= position["seconds"], "its times contradict each other")
    _require(not began or position["epoch"] < epochs, "it goes on after its last epoch")
    _require(position["best_accuracy"] <= 1, f"its best accuracy is {position['best_accuracy']}")


def _require_rows(rows: Any, epochs: int) -> None:
    _require(isinstance(rows, list) and len(rows) == epochs, f"it has not the metrics of {epochs} epochs")
    for number, row in enumerate(rows, 1):
        require_same_kind(row, METRICS_OF_AN_EPOCH, f"rows.{number}")
        _require(row["epoch"] == number, f"its row {number} is that of epoch {row['epoch']}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _describe(tensor: Tensor) -> str:
    return f"{'×'.join(map(str, tensor.shape)) or 'a number'} of {str(tensor.dtype).removeprefix('torch.')}"
