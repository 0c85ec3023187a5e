"""torch.nn's modules, computed by the hand-written functions.

    from torchfromscratch import nn

Each module subclasses torch.nn's of the same name and replaces what it computes, so constructors,
initial values, repr, state_dict and isinstance checks are torch.nn's own. Containers, parameters, initialisation
and what only moves elements compute no layer and are torch.nn's.
"""

from typing import Any

import torch.fx
import torch.nn
from torch.nn import (
    Buffer,
    ChannelShuffle,
    Identity,
    Module,
    ModuleDict,
    ModuleList,
    Parameter,
    ParameterDict,
    ParameterList,
    PixelShuffle,
    PixelUnshuffle,
    Sequential,
    Unflatten,
    UninitializedBuffer,
    UninitializedParameter,
    init,
    parallel,
    parameter,
    utils,
)

from torchfromscratch import functional
from torchfromscratch.nn.activation import *
from torchfromscratch.nn.attention import *
from torchfromscratch.nn.convolution import *
from torchfromscratch.nn.dropout import *
from torchfromscratch.nn.embedding import *
from torchfromscratch.nn.linear import *
from torchfromscratch.nn.loss import *
from torchfromscratch.nn.normalization import *
from torchfromscratch.nn.padding import *
from torchfromscratch.nn.pooling import *
from torchfromscratch.nn.recurrent import *
from torchfromscratch.nn.resizing import *
from torchfromscratch.nn.tracing import take_whole as _take_whole
from torchfromscratch.nn.unfold import *

_take_whole(torch.fx.Tracer)


def __getattr__(name: str) -> Any:
    if hasattr(torch.nn, name) and not name.startswith("_"):
        raise AttributeError(
            f"torchfromscratch.nn has no hand-written {name}; torch.nn.{name} runs PyTorch's built-in one"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
