"""Explanations of layers: the numbers from the package's own Functions, the cells from `Windows`."""

from torchfromscratch.explain.layers.activation import relu
from torchfromscratch.explain.layers.convolution import conv2d
from torchfromscratch.explain.layers.linear import linear
from torchfromscratch.explain.layers.loss import cross_entropy
from torchfromscratch.explain.layers.normalization import batch_norm
from torchfromscratch.explain.layers.pooling import avg_pool2d, max_pool2d

__all__ = ["avg_pool2d", "batch_norm", "conv2d", "cross_entropy", "linear", "max_pool2d", "relu"]
