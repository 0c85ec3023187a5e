"""PyTorch's layers with every forward and backward pass written by hand.

    from torchfromscratch import nn                   # torch.nn's modules
    import torchfromscratch.functional as F           # torch.nn.functional's functions
    from torchfromscratch import optim                # torch.optim's optimisers
    with torchfromscratch.audit(): ...                # raises where a built-in layer runs

Every layer is a torch.autograd.Function of `torchfromscratch.autograd`, where its formula stands beside
its derivative.
"""

from torchfromscratch import functional, nn, optim
from torchfromscratch.audit import BuiltinLayerError, audit
from torchfromscratch.from_scratch import from_scratch
from torchfromscratch.nn import Conv2d, Linear, MaxPool2d, ReLU

__all__ = [
    "BuiltinLayerError",
    "Conv2d",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "audit",
    "from_scratch",
    "functional",
    "nn",
    "optim",
]
