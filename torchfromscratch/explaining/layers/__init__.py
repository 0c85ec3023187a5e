"""Explanations of layers: the numbers from the package's own Functions, the cells from `Windows`."""

from torchfromscratch.explaining.layers.activation import relu
from torchfromscratch.explaining.layers.attention import attention
from torchfromscratch.explaining.layers.convolution import conv2d, conv_transpose2d
from torchfromscratch.explaining.layers.embedding import embedding
from torchfromscratch.explaining.layers.linear import linear
from torchfromscratch.explaining.layers.loss import cross_entropy
from torchfromscratch.explaining.layers.normalization import batch_norm, layer_norm
from torchfromscratch.explaining.layers.pooling import avg_pool2d, max_pool2d
from torchfromscratch.explaining.layers.recurrent import lstm
from torchfromscratch.explaining.layers.softmax import softmax

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
