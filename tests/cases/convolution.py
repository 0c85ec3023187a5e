"""Convolution: strides, paddings, dilations, groups, odd sizes, one to three dimensions."""

from tests.cases import Case, ModuleCase

CASES = [
    Case("conv1d", lambda F, x, w, b: F.conv1d(x, w, b, stride=2, padding=1), ((2, 4, 7), (6, 4, 3), (6,))),
    Case("conv2d", lambda F, x, w, b: F.conv2d(x, w, b), ((2, 3, 5, 6), (4, 3, 3, 2), (4,))),
    Case(
        "conv2d stride dilation groups",
        lambda F, x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        ((2, 4, 7, 6), (6, 2, 3, 2), (6,)),
    ),
    Case("conv2d same", lambda F, x, w: F.conv2d(x, w, padding="same"), ((2, 2, 5, 6), (3, 2, 2, 3))),
    Case("conv2d unbatched", lambda F, x, w, b: F.conv2d(x, w, b), ((3, 5, 6), (4, 3, 3, 2), (4,))),
    Case("conv2d depthwise", lambda F, x, w: F.conv2d(x, w, padding=1, groups=4), ((2, 4, 5, 5), (4, 1, 3, 3))),
    Case(
        "conv3d",
        lambda F, x, w, b: F.conv3d(x, w, b, padding=1, stride=2),
        ((2, 2, 4, 5, 3), (3, 2, 2, 3, 2), (3,)),
    ),
    Case(
        "conv_transpose1d",
        lambda F, x, w, b: F.conv_transpose1d(x, w, b, stride=3, padding=1, output_padding=2),
        ((2, 4, 5), (4, 3, 3), (3,)),
    ),
    Case(
        "conv_transpose2d",
        lambda F, x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2, dilation=2),
        ((2, 4, 3, 4), (4, 3, 3, 2), (6,)),
    ),
    Case(
        "conv_transpose3d",
        lambda F, x, w, b: F.conv_transpose3d(x, w, b),
        ((2, 2, 2, 3, 2), (2, 3, 2, 3, 2), (3,)),
    ),
    Case(
        "conv_tbc",
        lambda F, x, w, b: F.conv_tbc(x, w, b, 1),
        ((6, 2, 3), (3, 3, 4), (4,)),
        leave_out={
            "not_contiguous": "torch: view size is not compatible with input tensor's size and stride",
            "empty_batch": "in a sequence that is empty, padding alone is shorter than a window",
        },
    ),
]

MODULE_CASES = [
    ModuleCase("Conv1d", lambda nn: nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), ((2, 4, 8),)),
    ModuleCase("Conv2d", lambda nn: nn.Conv2d(4, 6, 3, stride=2, groups=2), ((2, 4, 8, 7),)),
    ModuleCase("Conv2d reflect", lambda nn: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), ((2, 4, 8, 7),)),
    ModuleCase(
        "Conv2d replicate",
        lambda nn: nn.Conv2d(4, 6, 3, padding=2, padding_mode="replicate"),
        ((2, 4, 8, 7),),
    ),
    ModuleCase("Conv2d same", lambda nn: nn.Conv2d(4, 6, 2, padding="same", bias=False), ((2, 4, 8, 7),)),
    ModuleCase("Conv3d", lambda nn: nn.Conv3d(2, 3, 3, padding=1), ((2, 2, 4, 5, 4),)),
    ModuleCase("ConvTranspose1d", lambda nn: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), ((2, 4, 8),)),
    ModuleCase("ConvTranspose2d", lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), ((2, 4, 5, 6),)),
    ModuleCase("ConvTranspose3d", lambda nn: nn.ConvTranspose3d(2, 3, 3, dilation=2), ((1, 2, 3, 2, 3),)),
]
