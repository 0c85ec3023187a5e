"""Training real networks on real pictures, with layers from scratch or from torch."""

from torchfromscratch.extras import from_extra

with from_extra("train"):
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
