"""The networks to train, each written once for any namespace of layers.

A builder takes the layers as its first argument (`torch.nn` or `torchfromscratch.nn`), so the very
same network can be trained with either. A new network is a function and a line in `MODELS`.
"""

import importlib
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType

import torch

from torchfromscratch.training.errors import UserError

PICTURES_AT_ONCE = 16  # in a batch of windows, which take several times the pictures' memory
LAYERS = {"scratch": "torchfromscratch", "torch": "torch"}


def layer_namespace(layers: str) -> ModuleType:
    """The modules that `--layers` names: `torchfromscratch.nn` for "scratch", `torch.nn` for "torch"."""
    return importlib.import_module(f"{LAYERS[layers]}.nn")


def optimizer_namespace(layers: str) -> ModuleType:
    """The optimisers that `--layers` names: `torchfromscratch.optim` or `torch.optim`."""
    return importlib.import_module(f"{LAYERS[layers]}.optim")


def lenet5(nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """LeNet-5 with the sizes of LeCun et al. 1998, and today's ReLU, max pooling and plain linear output.

    LeCun padded his 28×28 digits to 32×32; so does the first convolution for pictures below 32. Below
    16 pixels the second convolution pads too, or nothing would be left to convolve.
    """
    _require_size("lenet5", image_size, at_least=4)
    padding1 = 2 if image_size < 32 else 0
    padding2 = 2 if image_size < 16 else 0
    pooled1 = (image_size + 2 * padding1 - 4) // 2
    pooled2 = (pooled1 + 2 * padding2 - 4) // 2
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, 6, 5, padding=padding1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5, padding=padding2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(16 * pooled2**2, 120),
            relu3=nn.ReLU(),
            linear2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            linear3=nn.Linear(84, classes),
        )
    )
    return _initialise(model)


def smallvgg(nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """Three blocks of two 3×3 convolutions and a 2×2 max pooling, 32, 64 and 128 wide, then 256 → classes."""
    return _smallvgg(nn, in_channels, image_size, classes, batch_norm=False)


def smallvgg_bn(nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """`smallvgg` with batch normalisation behind every convolution."""
    return _smallvgg(nn, in_channels, image_size, classes, batch_norm=True)


def _smallvgg(nn: ModuleType, in_channels: int, image_size: int, classes: int, batch_norm: bool) -> torch.nn.Module:
    _require_size("smallvgg", image_size, at_least=8)

    def block(inputs: int, outputs: int) -> torch.nn.Module:
        layers = OrderedDict[str, torch.nn.Module]()
        for number, channels in ((1, inputs), (2, outputs)):
            layers[f"conv{number}"] = nn.Conv2d(channels, outputs, 3, padding=1)
            if batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
            layers[f"relu{number}"] = nn.ReLU()
        layers["pool"] = nn.MaxPool2d(2)
        return nn.Sequential(layers)

    model = nn.Sequential(
        OrderedDict(
            block1=block(in_channels, 32),
            block2=block(32, 64),
            block3=block(64, 128),
            flatten=nn.Flatten(),
            linear1=nn.Linear(128 * (image_size // 8) ** 2, 256),
            relu=nn.ReLU(),
            linear2=nn.Linear(256, classes),
        )
    )
    return _initialise(model)


def resnet18(nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """ResNet-18 for small pictures: a 3×3 first convolution with stride 1 and no pooling before the blocks.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2 and table 1.
    """
    _require_size("resnet18", image_size, at_least=8)
    stages = [
        _Residual(nn, inputs, outputs, stride)
        for inputs, outputs, first_stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        for inputs, stride in ((inputs, first_stride), (outputs, 1))
    ]
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, 64, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(64),
            relu=nn.ReLU(),
            stages=nn.Sequential(*stages),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(512, classes),
        )
    )


class _Residual(torch.nn.Module):
    """y = relu(x + f(x)), f two 3×3 convolutions; a 1×1 convolution brings x to the shape of f(x)."""

    def __init__(self, nn: ModuleType, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        residual = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(input)))))
        return self.relu(self.shortcut(input) + residual)


class VisionTransformer(torch.nn.Module):
    """A small vision transformer: an 8×8 grid of patches, 6 layers of width 128 with 4 heads.

    Patches have at least 2×2 pixels, so pictures below 16×16 make a smaller grid: one pixel alone says too little.
    The mean over the patches is classified, as by X. Zhai et al., "Scaling Vision Transformers", 2022.
    Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; lecture notes, "Multi-Head Attention".
    """

    GRID, WIDTH, LAYERS, HEADS = 8, 128, 6, 4

    # As large as the pixels', so that places count from the first step. With the papers' 0.02 the network must first
    # learn that patches have places: of digits, 65 % after 20 epochs, where 0.5 gives 92 % after 12.
    POSITION_DEVIATION = 1.0

    def __init__(self, nn: ModuleType, in_channels: int, image_size: int, classes: int) -> None:
        _require_size("vit", image_size, at_least=self.GRID)
        super().__init__()
        patch = max(image_size // self.GRID, 2)
        self.embed = nn.Conv2d(in_channels, self.WIDTH, patch, stride=patch)
        patches = ((image_size - patch) // patch + 1) ** 2
        self.position = torch.nn.Parameter(torch.empty(1, patches, self.WIDTH))
        torch.nn.init.trunc_normal_(self.position, std=self.POSITION_DEVIATION)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    self.WIDTH, self.HEADS, 4 * self.WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(self.LAYERS)
            )
        )
        self.norm = nn.LayerNorm(self.WIDTH)
        self.linear = nn.Linear(self.WIDTH, classes)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        patches = self.embed(input).flatten(2).transpose(1, 2)
        return self.linear(self.norm(self.layers(patches + self.position)).mean(1))


class Airbench(torch.nn.Module):
    """A wide network that learns CIFAR-10 in ten epochs: a whitening 2×2 convolution, three blocks, one linear layer.

    A block is convolution, max pooling, norm, GELU, convolution, norm, GELU. The logits are divided by 9, so that the
    first steps do not chase a few pictures. Norms scale by 1: what follows a norm is scaled by its own weights.
    Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3 and listing 4.
    """

    WIDTHS = (64, 256, 256)
    LOGIT_SCALE = 1 / 9
    NORM_MOMENTUM = 0.4
    NORM_EPS = 1e-12

    def __init__(self, nn: ModuleType, in_channels: int, image_size: int, classes: int) -> None:
        _require_size("airbench", image_size, at_least=3)
        super().__init__()
        whitened = 2 * in_channels * 2 * 2
        self.whiten = nn.Conv2d(in_channels, whitened, 2)
        self.whiten.weight.requires_grad_(False)
        torch.nn.init.zeros_(self.whiten.bias)
        self.gelu = nn.GELU()
        size, inputs = image_size - 1, whitened
        blocks = []
        for outputs in self.WIDTHS:
            pooled = 2 if size > 1 else 1
            blocks.append(self._block(nn, inputs, outputs, pooled))
            size, inputs = size // pooled, outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.MaxPool2d(size)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(inputs, classes, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        features = self.blocks(self.gelu(self.whiten(input)))
        return self.linear(self.flatten(self.pool(features))) * self.LOGIT_SCALE

    @torch.no_grad()
    def initialise_from(self, images: torch.Tensor) -> None:
        """Sets the whitening to what makes windows of these pictures, (N, C, H, W), uncorrelated and of variance 1."""
        filters = whitening_filters(images, window=2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def _block(self, nn: ModuleType, inputs: int, outputs: int, pooled: int) -> torch.nn.Module:
        return nn.Sequential(
            OrderedDict(
                conv1=_dirac_initialised(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
                pool=nn.MaxPool2d(pooled),
                norm1=self._norm(nn, outputs),
                gelu1=nn.GELU(),
                conv2=_dirac_initialised(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)),
                norm2=self._norm(nn, outputs),
                gelu2=nn.GELU(),
            )
        )

    def _norm(self, nn: ModuleType, channels: int) -> torch.nn.Module:
        norm = nn.BatchNorm2d(channels, eps=self.NORM_EPS, momentum=self.NORM_MOMENTUM)
        norm.weight.requires_grad_(False)
        return norm


def whitening_filters(images: torch.Tensor, window: int, eps: float = 5e-4) -> torch.Tensor:
    """The principal components of all windows in the pictures, each divided by its standard deviation.

    With the windows' covariance Σ = V Λ Vᵀ: row i is vᵢ / √(λᵢ + ε), as a filter of shape (C, window, window).
    Source: D. Page, "How to Train Your ResNet 8: Bag of Tricks", 2019.

    Shapes: (N, C, H, W) → (C · window², C, window, window).
    """
    channels = images.shape[1]
    products, count = 0.0, 0
    for part in images.split(PICTURES_AT_ONCE):
        part = part.cpu() if part.device.type == "mps" else part  # which has no float64
        windows = part.unfold(2, window, 1).unfold(3, window, 1)
        columns = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * window**2).double()
        products, count = products + columns.T @ columns, count + len(columns)
    variances, components = torch.linalg.eigh(products / count)
    filters = (components / (variances + eps).sqrt()).T.flip(0)
    return filters.reshape(-1, channels, window, window).to(images)


def _dirac_initialised(layer: torch.nn.Conv2d) -> torch.nn.Conv2d:
    """Lets the first output channels begin as copies of the input's, as a deep network learns best from near identity.

    Source: S. Zagoruyko and N. Komodakis, "DiracNets", 2017.
    """
    torch.nn.init.dirac_(layer.weight[: layer.weight.shape[1]])
    return layer


MODELS: dict[str, Callable[[ModuleType, int, int, int], torch.nn.Module]] = {
    "lenet5": lenet5,
    "smallvgg": smallvgg,
    "smallvgg-bn": smallvgg_bn,
    "resnet18": resnet18,
    "vit": VisionTransformer,
    "airbench": Airbench,
}


def build_model(name: str, *, nn: ModuleType, in_channels: int, image_size: int, classes: int) -> torch.nn.Module:
    """The network `name`, made of the layers in `nn`, with weights drawn from torch's global generator.

    Shapes: (N, in_channels, image_size, image_size) → (N, classes).

    Raises:
        UserError: if there is no such network, or pictures of image_size are too small for it.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; choose one of: {', '.join(MODELS)}")
    return MODELS[name](nn, in_channels, image_size, classes)


def computing_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The layers of a network that hold no others and do more than look at their input in another shape."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if not any(True for _ in layer.children()) and not isinstance(layer, (torch.nn.Flatten, torch.nn.Sequential))
    }


def _initialise(model: torch.nn.Module) -> torch.nn.Module:
    """Draws weights of variance 2/fan_in for all layers before a ReLU, which is all but the last.

    So signals keep their size however many layers pass them on. torch's own initial values, with a sixth of that
    variance, shrink them, and SmallVGG without normalisation guesses for hundreds of steps before it learns.
    Source: K. He et al., "Delving Deep into Rectifiers", 2015, section 2.2.
    """
    *before_relu, _ = (layer for layer in model.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)))
    for layer in before_relu:
        weight, bias = layer.parameters()
        torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
        torch.nn.init.zeros_(bias)
    return model


def _require_size(name: str, image_size: int, at_least: int) -> None:
    if image_size < at_least:
        raise UserError(
            f"{name} needs pictures of at least {at_least}×{at_least} pixels, these have "
            f"{image_size}×{image_size}: choose another --model, or a larger --image-size for a folder"
        )
