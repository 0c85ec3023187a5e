"""One small forward and backward pass of a layer, told step by step: as text, as a page, as pictures."""

from torchfromscratch.explain.explanation import Explanation, Grid, Pass, Step
from torchfromscratch.explain.layers import (
    avg_pool2d,
    batch_norm,
    conv2d,
    cross_entropy,
    linear,
    max_pool2d,
    relu,
)

__all__ = [
    "Explanation",
    "Grid",
    "Pass",
    "Step",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "linear",
    "max_pool2d",
    "relu",
]
