"""Explanations of layers: the numbers from the package's own Functions, the cells from `Windows`."""

from torchfromscratch.explain.layers.activation import relu
from torchfromscratch.explain.layers.attention import attention
from torchfromscratch.explain.layers.convolution import conv2d, conv_transpose2d
from torchfromscratch.explain.layers.embedding import embedding
from torchfromscratch.explain.layers.linear import linear
from torchfromscratch.explain.layers.loss import cross_entropy
from torchfromscratch.explain.layers.normalization import batch_norm, layer_norm
from torchfromscratch.explain.layers.pooling import avg_pool2d, max_pool2d
from torchfromscratch.explain.layers.recurrent import lstm
from torchfromscratch.explain.layers.softmax import softmax

__all__ = [
    "attention",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "embedding",
    "layer_norm",
    "linear",
    "lstm",
    "max_pool2d",
    "relu",
    "softmax",
]
