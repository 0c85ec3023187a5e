"""PyTorch's layers with every forward and backward pass written by hand.

    from torchfromscratch import nn                   # torch.nn's modules
    import torchfromscratch.functional as F           # torch.nn.functional's functions
    from torchfromscratch import optim                # SGD, Adam and AdamW
    torchfromscratch.convert(model)                   # any model's layers, by hand
    with torchfromscratch.from_scratch(): ...         # torch's own functions, by hand
    with torchfromscratch.audit(): ...                # raises where a built-in layer runs
    print(torchfromscratch.summary(model, (1, 3, 32, 32)))  # what each layer has, costs and sees
    print(torchfromscratch.check(MyConv2d.apply, "conv2d"))  # what is wrong with a backward pass of your own
    torchfromscratch.explain("conv2d")                # every number of one small pass, in a notebook a page

Every layer is a torch.autograd.Function of `torchfromscratch.autograd`, where its formula stands beside
its derivative.
"""

import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from torchfromscratch.entry_point import NAME, loading

with loading():
    import torch

    from torchfromscratch import functional, nn, optim
    from torchfromscratch.algorithm import algorithm
    from torchfromscratch.audit import BuiltinLayerError, audit
    from torchfromscratch.autograd.function import Function, differentiable
    from torchfromscratch.checking import check
    from torchfromscratch.convert import conversion_report, convert
    from torchfromscratch.from_scratch import from_scratch
    from torchfromscratch.nn import Conv2d, Linear, MaxPool2d, ReLU
    from torchfromscratch.summary import summary

if TYPE_CHECKING:
    from torchfromscratch.explaining import explain

# As torch does for its own code: what a recorded program holds for constant is told in words of ours.
warnings.filterwarnings(
    "ignore",
    "Converting a tensor|Iterating over a tensor|Using len to get|torch.tensor results",
    torch.jit.TracerWarning,
    "torchfromscratch",
)

try:
    __version__ = version(NAME)
except PackageNotFoundError:  # a clone that is not installed
    __version__ = "0+unknown"

__all__ = [
    "BuiltinLayerError",
    "Conv2d",
    "Function",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "__version__",
    "algorithm",
    "audit",
    "check",
    "conversion_report",
    "convert",
    "differentiable",
    "explain",
    "from_scratch",
    "functional",
    "nn",
    "optim",
    "summary",
]


def __getattr__(name: str) -> Any:
    """`explain`, imported when it is first asked for: that takes a third of the time of all others."""
    if name != "explain":
        raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
    from torchfromscratch.explaining import explain

    return explain


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
