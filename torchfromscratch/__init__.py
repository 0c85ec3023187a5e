"""PyTorch's layers with every forward and backward pass written by hand.

    from torchfromscratch import nn                   # torch.nn's modules
    import torchfromscratch.functional as F           # torch.nn.functional's functions
    from torchfromscratch import optim                # torch.optim's optimisers

Every layer is a torch.autograd.Function of `torchfromscratch.autograd`, where its formula stands beside
its derivative.
"""

from torchfromscratch import functional, nn
from torchfromscratch.nn import Conv2d, Linear, MaxPool2d, ReLU

__all__ = ["Conv2d", "Linear", "MaxPool2d", "ReLU", "functional", "nn"]
