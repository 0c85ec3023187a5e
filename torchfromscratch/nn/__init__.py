"""torch.nn's modules, computed by the hand-written functions.

    from torchfromscratch import nn

Each module subclasses torch.nn's of the same name and replaces what it computes, so constructors,
initial values, repr, state_dict and isinstance checks are torch.nn's own. Containers, parameters, initialisation
and views compute no layer and are torch.nn's: docs/coverage.md tells which.
"""

from typing import Any

import torch.fx
import torch.nn
from torch.nn import (
    Buffer as Buffer,
)
from torch.nn import (
    Container as Container,
)
from torch.nn import (
    DataParallel as DataParallel,
)
from torch.nn import (
    Identity as Identity,
)
from torch.nn import (
    Module as Module,
)
from torch.nn import (
    ModuleDict as ModuleDict,
)
from torch.nn import (
    ModuleList as ModuleList,
)
from torch.nn import (
    Parameter as Parameter,
)
from torch.nn import (
    ParameterDict as ParameterDict,
)
from torch.nn import (
    ParameterList as ParameterList,
)
from torch.nn import (
    RNNBase as RNNBase,
)
from torch.nn import (
    RNNCellBase as RNNCellBase,
)
from torch.nn import (
    Sequential as Sequential,
)
from torch.nn import (
    Unflatten as Unflatten,
)
from torch.nn import (
    UninitializedBuffer as UninitializedBuffer,
)
from torch.nn import (
    UninitializedParameter as UninitializedParameter,
)
from torch.nn import (
    init as init,
)
from torch.nn import (
    parallel as parallel,
)
from torch.nn import (
    parameter as parameter,
)
from torch.nn import (
    utils as utils,
)

from torchfromscratch import functional
from torchfromscratch.nn.activation import *
from torchfromscratch.nn.attention import *
from torchfromscratch.nn.classification import *
from torchfromscratch.nn.convolution import *
from torchfromscratch.nn.distance import *
from torchfromscratch.nn.dropout import *
from torchfromscratch.nn.embedding import *
from torchfromscratch.nn.fractional import *
from torchfromscratch.nn.linear import *
from torchfromscratch.nn.loss import *
from torchfromscratch.nn.normalization import *
from torchfromscratch.nn.padding import *
from torchfromscratch.nn.pooling import *
from torchfromscratch.nn.recurrent import *
from torchfromscratch.nn.resizing import *
from torchfromscratch.nn.shuffle import *
from torchfromscratch.nn.tracing import take_whole as _take_whole
from torchfromscratch.nn.unfold import *

_take_whole(torch.fx.Tracer)


# what holds no layer, by the names that the installed torch has
_TORCHS_OWN = (
    *("common_types", "factory_kwargs", "grad", "intrinsic", "modules", "qat", "quantizable", "quantized"),
    "LinearCrossEntropyOptions",
)


def __getattr__(name: str) -> Any:
    if name in _TORCHS_OWN and hasattr(torch.nn, name):
        return getattr(torch.nn, name)
    if hasattr(torch.nn, name) and not name.startswith("_"):
        raise AttributeError(
            f"torchfromscratch.nn has no hand-written {name}; torch.nn.{name} runs PyTorch's built-in one"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
