"""torch.nn.functional's names and signatures, computed by the hand-written Functions.

import torchfromscratch.functional as F
"""

from types import FunctionType as _FunctionType
from typing import Any as _Any

import torch.nn.functional as _theirs

from torchfromscratch.functional.activation import *
from torchfromscratch.functional.attention import *
from torchfromscratch.functional.convolution import *
from torchfromscratch.functional.ctc import *
from torchfromscratch.functional.distance import *
from torchfromscratch.functional.dropout import *
from torchfromscratch.functional.embedding import *
from torchfromscratch.functional.fractional import *
from torchfromscratch.functional.linear import *
from torchfromscratch.functional.linear_loss import *
from torchfromscratch.functional.loss import *
from torchfromscratch.functional.margin_loss import *
from torchfromscratch.functional.normalization import *
from torchfromscratch.functional.override import overridable as _overridable
from torchfromscratch.functional.padding import *
from torchfromscratch.functional.pooling import *
from torchfromscratch.functional.recurrent import *
from torchfromscratch.functional.resizing import *
from torchfromscratch.functional.sampling import *
from torchfromscratch.functional.shuffle import *
from torchfromscratch.functional.unfold import *

# every one of them asks its arguments first
for _name, _function in [*globals().items()]:
    if isinstance(_function, _FunctionType) and not _name.startswith("_"):
        globals()[_name] = _overridable(_function, __name__)

# products of matrices, which are no layers, and their options, where the installed torch has them
_TORCHS_OWN = ("ScalingType", "SwizzleType", "grouped_mm", "scaled_grouped_mm", "scaled_mm")


def __getattr__(name: str) -> _Any:
    if name in _TORCHS_OWN and hasattr(_theirs, name):
        return getattr(_theirs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
