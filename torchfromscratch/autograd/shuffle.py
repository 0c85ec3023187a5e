"""Rearrangements: each element goes to one place, and its gradient comes back from there.

    PixelShuffle    y[n, c, h·r + i, w·r + j] = x[n, (c·r + i)·r + j, h, w]    transpose: the inverse
    ChannelShuffle  y[n, c·G + g] = x[n, g·C/G + c]                            transpose: the same with C/G groups

Source: W. Shi et al., "Real-time single image and video super-resolution", 2016; X. Zhang et al., "ShuffleNet", 2018.
"""

from __future__ import annotations

from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels import shuffle as shuffle_kernels

pixel_shuffle, pixel_unshuffle = linear_pair(
    "PixelShuffle",
    shuffle_kernels.depth_to_space,
    shuffle_kernels.space_to_depth,
    per_sample=True,
)
channel_shuffle, channel_unshuffle = linear_pair(
    "ChannelShuffle",
    shuffle_kernels.transpose_groups,
    lambda g, groups: shuffle_kernels.transpose_groups(g, g.shape[1] // groups),
    per_sample=True,
)
