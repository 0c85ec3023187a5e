"""One small forward and backward pass of a layer, told step by step: as text, as a page, as pictures."""

from torchfromscratch.explaining.arguments import CannotExplainError
from torchfromscratch.explaining.call import explain
from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step
from torchfromscratch.explaining.layers import (
    attention,
    avg_pool2d,
    batch_norm,
    conv2d,
    conv_transpose2d,
    cross_entropy,
    embedding,
    layer_norm,
    linear,
    lstm,
    max_pool2d,
    relu,
    softmax,
)

__all__ = [
    "CannotExplainError",
    "Explanation",
    "Grid",
    "Pass",
    "Step",
    "attention",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "embedding",
    "explain",
    "layer_norm",
    "linear",
    "lstm",
    "max_pool2d",
    "relu",
    "softmax",
]
