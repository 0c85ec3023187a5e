"""torchvision's models by hand: the same outputs, gradients and statistics, and nothing built in.

Each family in a small version of its own; tests/test_model_table.py has all models as torchvision has them.
"""

import copy
from functools import partial

import pytest
import torch
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from torchvision.models.vgg import make_layers
from torchvision.transforms.v2 import functional as v2

from torchfromscratch import audit, conversion_report, convert, from_scratch
from torchfromscratch.comparison import by_hand, compare, disable_dropout, fill_zero_weights, take_step

TOLERANCE = 1e-6


def alexnet():
    model = models.AlexNet(num_classes=5)
    model.classifier[1] = torch.nn.Linear(256 * 6 * 6, 8)
    model.classifier[4] = torch.nn.Linear(8, 8)
    model.classifier[6] = torch.nn.Linear(8, 5)
    return model


def vgg():
    model = models.VGG(make_layers([4, "M", 8, "M", 512], batch_norm=True), num_classes=5)
    model.classifier[0] = torch.nn.Linear(512 * 7 * 7, 8)
    model.classifier[3] = torch.nn.Linear(8, 8)
    model.classifier[6] = torch.nn.Linear(8, 5)
    return model


def efficientnet():
    stages = [MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1), MBConvConfig(4, 5, 2, 8, 16, 2, 1, 1)]
    return models.EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.2, num_classes=5)


def efficientnet_v2():
    stages = [FusedMBConvConfig(2, 3, 1, 8, 8, 1), MBConvConfig(2, 3, 2, 8, 16, 1, 1, 1)]
    norm = partial(torch.nn.BatchNorm2d, eps=1e-3)
    return models.EfficientNet(stages, 0.2, num_classes=5, norm_layer=norm, last_channel=32)


def mobilenet_v3():
    stages = [
        InvertedResidualConfig(8, 3, 16, 8, True, "RE", 1, 1, 1),
        InvertedResidualConfig(8, 5, 24, 16, True, "HS", 2, 1, 1),
    ]
    return models.MobileNetV3(stages, last_channel=16, num_classes=5)


def swin(version=1):
    options = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if version == 2 else {}
    return models.SwinTransformer(
        [2, 2], embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=5, **options
    )


def maxvit():
    return models.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], head_dim=4, stochastic_depth_prob=0.2, num_classes=5)


# The families of torchvision.models.list_models(module=torchvision.models), and the side of the pictures.
SMALL = {
    "alexnet": (alexnet, 64),
    "convnext": (
        lambda: models.ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], 0.2, num_classes=5),
        32,
    ),
    "densenet": (lambda: models.DenseNet(4, (2, 2), 8, 2, num_classes=5), 32),
    "densenet, checkpointed": (
        lambda: models.DenseNet(4, (2, 2), 8, 2, num_classes=5, memory_efficient=True),
        32,
    ),
    "efficientnet": (efficientnet, 32),
    "efficientnet_v2": (efficientnet_v2, 32),
    "googlenet": (lambda: models.GoogLeNet(num_classes=5, init_weights=False), 32),
    "inception": (lambda: models.Inception3(num_classes=5, aux_logits=False, init_weights=False), 75),
    "maxvit": (maxvit, 32),
    "mnasnet": (lambda: models.MNASNet(0.1, num_classes=5), 32),
    "mobilenet_v2": (lambda: models.MobileNetV2(5, 0.25), 32),
    "mobilenet_v3": (mobilenet_v3, 32),
    "regnet": (lambda: RegNet(BlockParams.from_init_params(4, 8, 8.0, 2.5, 8, 0.25), num_classes=5), 32),
    "resnet": (lambda: models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5), 32),
    "resnext": (lambda: models.ResNet(Bottleneck, [1, 1, 1, 1], 5, groups=8, width_per_group=4), 32),
    "shufflenet": (lambda: models.ShuffleNetV2([2, 2, 2], [8, 8, 16, 32, 64], num_classes=5), 64),
    "squeezenet": (lambda: models.SqueezeNet("1_1", num_classes=5), 32),
    "swin": (swin, 32),
    "swin_v2": (partial(swin, 2), 32),
    "vgg": (vgg, 16),
    "vit": (lambda: models.VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5), 16),
}


@pytest.mark.parametrize("how", ["convert", "from_scratch"])
@pytest.mark.parametrize("family", SMALL)
def test_one_model_of_each_family_runs_by_hand(family, how):
    build, size = SMALL[family]
    torch.manual_seed(0)
    model = build().double().train()
    disable_dropout(model)
    fill_zero_weights(model)
    names = [name for name, _ in model.named_parameters()]
    inputs = [torch.randn(2, 3, size, size, dtype=torch.float64)]
    expected = take_step(model, inputs)
    assert compare(model, inputs, expected).kernels
    with by_hand(model, how):
        assert [name for name, _ in model.named_parameters()] == names
        comparison = compare(model, inputs, expected)
    assert not comparison.kernels, str(comparison.kernels)
    assert comparison.output_error <= TOLERANCE
    assert comparison.gradient_error <= TOLERANCE, comparison.gradient_name
    assert comparison.buffer_error <= TOLERANCE
    assert not conversion_report(model).by_hand


@pytest.mark.parametrize("family", ["densenet", "googlenet", "mobilenet_v3", "resnet", "vit"])
def test_features_are_extracted_by_hand(family):
    """torchvision traces the converted model to the same nodes, and what it takes out of it runs by hand."""
    build, size = SMALL[family]
    torch.manual_seed(0)
    model = build().double().eval()
    by_torch, ours = model, convert(copy.deepcopy(model))
    nodes = get_graph_node_names(by_torch)
    assert get_graph_node_names(ours) == nodes
    wanted = nodes[1][-2:-12:-3]
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = create_feature_extractor(by_torch, wanted)(x)
    with audit():
        features = create_feature_extractor(ours, wanted)(x)
    torch.testing.assert_close(features, expected, rtol=0, atol=TOLERANCE)


CORNERS = [[0, 0], [8, 0], [8, 7], [0, 7]]
WARPS = {
    "affine": lambda x: v2.affine(x, 20.0, [1.0, -2.0], 1.2, [5.0, 3.0], v2.InterpolationMode.BILINEAR),
    "rotate": lambda x: v2.rotate(x, 30.0, v2.InterpolationMode.NEAREST, expand=True),
    "perspective": lambda x: v2.perspective(x, CORNERS, [[1, 0], [7, 1], [8, 6], [0, 7]]),
    "elastic": lambda x: v2.elastic(x, torch.linspace(-0.3, 0.3, 144, dtype=x.dtype).view(1, 8, 9, 2)),
}


@pytest.mark.parametrize("warp", WARPS.values(), ids=WARPS)
def test_warped_pictures_are_sampled_by_hand(warp):
    x = torch.rand(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)

    def gradient():
        y = warp(x)
        return y, *torch.autograd.grad(y.square().sum(), x)

    with audit(record=True) as report:
        expected = gradient()
    assert report
    with from_scratch(), audit():
        torch.testing.assert_close(gradient(), expected)
