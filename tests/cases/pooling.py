"""Pooling: windows with every option, spans of differing lengths, one to three dimensions."""

import math

import torch

from tests import lacks
from tests.cases import EVERY_TEST, Case, ModuleCase

OF_INFINITE_POWER = {EVERY_TEST: reason} if (reason := lacks.norms_of_infinite_power()) else {}

# where two pictures' maxima were, of at least 8 places
PLACES = torch.tensor([[[[1, 7], [4, 2]]], [[[0, 3], [5, 6]]]])


def on(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return positions.to(x.device)


CASES = [
    Case("max_pool1d", lambda F, x: F.max_pool1d(x, 3, stride=2, padding=1), ((2, 3, 8),)),
    Case("max_pool2d", lambda F, x: F.max_pool2d(x, 2), ((2, 3, 6, 5),)),
    Case("max_pool2d 3×3", lambda F, x: F.max_pool2d(x, 3, stride=2), ((2, 3, 7, 6),)),
    Case(
        "max_pool2d options",
        lambda F, x: F.max_pool2d(x, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), ceil_mode=True),
        ((2, 3, 7, 6),),
    ),
    Case("max_pool2d indices", lambda F, x: F.max_pool2d(x, 2, return_indices=True)[0], ((2, 3, 6, 5),)),
    Case("max_pool2d unbatched", lambda F, x: F.max_pool2d(x, 2), ((3, 6, 5),)),
    Case("max_pool3d", lambda F, x: F.max_pool3d(x, 2, stride=1), ((1, 2, 3, 4, 3),)),
    Case("avg_pool1d", lambda F, x: F.avg_pool1d(x, 3, stride=2, padding=1), ((2, 3, 8),)),
    Case(
        "avg_pool2d options",
        lambda F, x: F.avg_pool2d(x, (3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        ((2, 3, 7, 6),),
    ),
    Case("avg_pool2d divisor", lambda F, x: F.avg_pool2d(x, 2, padding=1, divisor_override=3), ((2, 3, 7, 6),)),
    Case("avg_pool3d", lambda F, x: F.avg_pool3d(x, 2, stride=1), ((1, 2, 3, 4, 3),)),
    Case("adaptive_max_pool1d", lambda F, x: F.adaptive_max_pool1d(x, 3), ((2, 3, 8),)),
    Case("adaptive_max_pool2d", lambda F, x: F.adaptive_max_pool2d(x, (3, None)), ((2, 3, 7, 5),)),
    Case("adaptive_max_pool3d", lambda F, x: F.adaptive_max_pool3d(x, 2), ((1, 2, 3, 4, 3),)),
    Case("adaptive_avg_pool1d", lambda F, x: F.adaptive_avg_pool1d(x, 3), ((2, 3, 8),)),
    Case("adaptive_avg_pool2d", lambda F, x: F.adaptive_avg_pool2d(x, (3, 1)), ((2, 3, 7, 5),)),
    Case("adaptive_avg_pool2d larger", lambda F, x: F.adaptive_avg_pool2d(x, 7), ((2, 3, 4, 5),)),
    Case("adaptive_avg_pool3d", lambda F, x: F.adaptive_avg_pool3d(x, (2, 1, 3)), ((1, 2, 3, 4, 3),)),
    Case("lp_pool1d", lambda F, x: F.lp_pool1d(x, 2, 3, stride=2), ((2, 3, 8),)),
    Case("lp_pool2d", lambda F, x: F.lp_pool2d(x, 4, (2, 3), stride=2, ceil_mode=True), ((2, 3, 7, 6),)),
    Case("lp_pool2d 1.5", lambda F, x: F.lp_pool2d(x, 1.5, 2), ((3, 4, 5),), low=0.1),
    Case("lp_pool2d ∞", lambda F, x: F.lp_pool2d(x, math.inf, 2), ((2, 3, 4, 5),), leave_out=OF_INFINITE_POWER),
    Case("lp_pool1d −∞", lambda F, x: F.lp_pool1d(x, -math.inf, 2), ((2, 3, 6),), leave_out=OF_INFINITE_POWER),
    Case("lp_pool3d", lambda F, x: F.lp_pool3d(x, 2.0, 2, stride=1), ((1, 2, 3, 4, 3),)),
    Case("max_unpool1d", lambda F, x: F.max_unpool1d(x, on(x, PLACES).flatten(2), 2), ((2, 1, 4),)),
    Case("max_unpool2d", lambda F, x: F.max_unpool2d(x, on(x, PLACES), 2, output_size=(5, 4)), ((2, 1, 2, 2),)),
    Case("max_unpool2d unbatched", lambda F, x: F.max_unpool2d(x, on(x, PLACES)[0], 3, 2, 1), ((1, 2, 2),)),
    Case("max_unpool3d", lambda F, x: F.max_unpool3d(x, on(x, PLACES).unsqueeze(2), (1, 2, 2)), ((2, 1, 1, 2, 2),)),
]

MODULE_CASES = [
    ModuleCase("MaxPool1d", lambda nn: nn.MaxPool1d(2), ((2, 3, 8),)),
    ModuleCase("MaxPool2d", lambda nn: nn.MaxPool2d(3, 2, 1, ceil_mode=True), ((2, 3, 8, 7),)),
    ModuleCase("MaxPool3d", lambda nn: nn.MaxPool3d(2), ((1, 2, 4, 4, 5),)),
    ModuleCase("AvgPool1d", lambda nn: nn.AvgPool1d(3, 1, 1), ((2, 3, 8),)),
    ModuleCase("AvgPool2d", lambda nn: nn.AvgPool2d(3, 2, 1, count_include_pad=False), ((2, 3, 8, 7),)),
    ModuleCase("AvgPool3d", lambda nn: nn.AvgPool3d(2), ((1, 2, 4, 4, 5),)),
    ModuleCase("AdaptiveMaxPool1d", lambda nn: nn.AdaptiveMaxPool1d(3), ((2, 3, 8),)),
    ModuleCase("AdaptiveMaxPool2d", lambda nn: nn.AdaptiveMaxPool2d((3, None)), ((2, 3, 8, 7),)),
    ModuleCase("AdaptiveMaxPool3d", lambda nn: nn.AdaptiveMaxPool3d(2), ((1, 2, 4, 4, 5),)),
    ModuleCase("AdaptiveAvgPool1d", lambda nn: nn.AdaptiveAvgPool1d(3), ((2, 3, 8),)),
    ModuleCase("AdaptiveAvgPool2d", lambda nn: nn.AdaptiveAvgPool2d(1), ((2, 3, 8, 7),)),
    ModuleCase("AdaptiveAvgPool3d", lambda nn: nn.AdaptiveAvgPool3d((None, 2, 3)), ((1, 2, 4, 4, 5),)),
    ModuleCase("LPPool1d", lambda nn: nn.LPPool1d(2, 3, 2), ((2, 3, 8),)),
    ModuleCase("LPPool2d", lambda nn: nn.LPPool2d(2.0, (2, 3), ceil_mode=True), ((2, 3, 8, 7),)),
    ModuleCase("LPPool3d", lambda nn: nn.LPPool3d(4, 2), ((1, 2, 4, 4, 5),)),
    ModuleCase(
        "MaxUnpool1d",
        lambda nn: nn.MaxUnpool1d(2),
        ((2, 1, 4),),
        lambda module, x: module(x, on(x, PLACES).flatten(2)),
    ),
    ModuleCase(
        "MaxUnpool2d",
        lambda nn: nn.MaxUnpool2d(3, 2, 1),
        ((2, 1, 2, 2),),
        lambda module, x: module(x, on(x, PLACES), (2, 1, 4, 4)),
    ),
    ModuleCase(
        "MaxUnpool3d",
        lambda nn: nn.MaxUnpool3d((1, 2, 2)),
        ((2, 1, 1, 2, 2),),
        lambda module, x: module(x, on(x, PLACES).unsqueeze(2)),
    ),
]
