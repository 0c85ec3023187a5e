"""Training real networks on real pictures, with layers from scratch or from torch.

Names are imported when they are first asked for, so that a command tells of a mistake before what trains is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

from torchfromscratch.extras import from_extra

if TYPE_CHECKING:
    from torchfromscratch.training.config import Config, resolve
    from torchfromscratch.training.data import Dataset, Pictures, load_dataset
    from torchfromscratch.training.errors import Interrupted, UserError
    from torchfromscratch.training.models import MODELS, build_model
    from torchfromscratch.training.trainer import Trainer

__all__ = [
    "MODELS",
    "Config",
    "Dataset",
    "Interrupted",
    "Pictures",
    "Trainer",
    "UserError",
    "build_model",
    "load_dataset",
    "resolve",
]

_FILES = {
    "config": ("Config", "resolve"),
    "data": ("Dataset", "Pictures", "load_dataset"),
    "errors": ("Interrupted", "UserError"),
    "models": ("MODELS", "build_model"),
    "trainer": ("Trainer",),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            with from_extra("train"):
                return getattr(importlib.import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
