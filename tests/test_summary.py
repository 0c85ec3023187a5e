"""The receptive field is the one that can be measured, and the counts are those of torch."""

import pytest
import torch

import torchfromscratch
from torchfromscratch import nn
from torchfromscratch.kernels.windows import Windows
from torchfromscratch.summary import ReceptiveField, summary


def seen_by(model, input_size, position):
    """First and last input row and column that move one output position: where its gradient is not zero."""
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    x = torch.ones(input_size, requires_grad=True)
    model(x)[0, 0][position].backward()
    return [
        (int(line.nonzero().min()), int(line.nonzero().max()))
        for line in (x.grad.sum((0, 1, 3)), x.grad.sum((0, 1, 2)))
    ]


class Residual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow = nn.Conv2d(2, 2, 1)
        self.wide = nn.Conv2d(2, 2, (5, 3), padding=(2, 1))
        self.last = nn.Conv2d(4, 1, 3, stride=2, dilation=2)

    def forward(self, x):
        y = torch.relu(self.narrow(x) + self.wide(x))
        return self.last(torch.cat([x, y], dim=1))


MODELS = {
    "convolutions": lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3, dilation=2)),
    "strides and pooling": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.AvgPool2d(2), nn.Conv2d(3, 1, (1, 3), padding=1)
    ),
    "branches": Residual,
    "adaptive pooling": lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.AdaptiveAvgPool2d(4)),
}


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in MODELS.items()])
def test_receptive_field_is_what_the_gradient_reaches(build):
    model, size = build(), (1, 2, 24, 24)
    field = summary(model, size).layers[0].receptive_field
    position = (2, 2)
    for dim, (first, last) in enumerate(seen_by(model, size, position)):
        start = field.start[dim] + position[dim] * field.stride[dim]
        assert (first, last) == (max(start, 0), min(start + field.size[dim], size[2 + dim]) - 1)


def test_resnet18_sees_435_pixels():
    torchvision = pytest.importorskip("torchvision")
    layers = summary(torchvision.models.resnet18(), (1, 3, 64, 64)).layers
    (last,) = [layer for layer in layers if layer.name == "layer4"]
    assert last.receptive_field == ReceptiveField((435, 435), (32, 32), (-217, -217))


def test_what_is_not_known_is_not_guessed():
    model = nn.Sequential(nn.ConvTranspose2d(1, 1, 2, stride=2), nn.Conv2d(1, 1, 3))
    assert [layer.receptive_field for layer in summary(model, (1, 1, 8, 8)).layers] == [None] * 3


def test_linear_layers_see_the_whole_input():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 6 * 6, 4))
    assert summary(model, (1, 1, 8, 8)).layers[-1].receptive_field == ReceptiveField((8, 8), (0, 0), (0, 0))


def test_counts_shapes_and_repeated_layers():
    convolution = nn.Conv2d(2, 2, 3, padding=1)
    found = torchfromscratch.summary(nn.Sequential(convolution, nn.ReLU(), convolution), (3, 2, 5, 5))
    assert [layer.output_shape for layer in found.layers] == [(3, 2, 5, 5)] * 4
    assert [layer.parameters for layer in found.layers] == [0, 38, 0, 0]
    assert found.parameters == 38
    assert found.multiply_adds == 2 * 38 * 3 * 5 * 5
    assert [layer.receptive_field.size for layer in found.layers[1:]] == [(3, 3), (3, 3), (5, 5)]


def test_table_names_every_layer():
    text = str(summary(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (1, 1, 8, 8)))
    assert "0 (Conv2d)" in text
    assert "3×3" in text
    assert text.endswith("20 parameters, 720 multiply-adds")


def test_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    summary(model, (2, 1, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("arrangement", ["cccc", "cpcpc"])
def test_fields_grow_by_the_stride_before_them(arrangement):
    windows = {
        "c": Windows((3,), (1,), (1,), (1,)),
        "p": Windows((2,), (2,), (0,), (1,)),
    }
    field = ReceptiveField.of_input(1)
    for layer in arrangement:
        field = field.through(windows[layer])
    assert (
        field == {"cccc": ReceptiveField((9,), (1,), (-4,)), "cpcpc": ReceptiveField((18,), (4,), (-7,))}[arrangement]
    )


@pytest.mark.parametrize(
    ("model", "size", "error", "message"),
    [
        (3, (1, 3), TypeError, "summary needs a torch.nn.Module, but got 3 of type int"),
        (nn.Linear, (1, 3), TypeError, "summary needs a torch.nn.Module"),
        (nn.Linear(3, 4), "abc", TypeError, r"needs the shape of an input with its batch.* but got 'abc'"),
        (nn.Linear(3, 4), 3, TypeError, "needs the shape of an input"),
        (nn.Linear(3, 4), (1, 2.5), TypeError, "needs the shape of an input"),
        (nn.Linear(3, 4), (), TypeError, "needs the shape of an input"),
        (nn.Linear(3, 4), torch.ones(1, 3), TypeError, "needs the shape of an input"),
        (nn.Linear(3, 4), (0, 3), ValueError, r"at least 1, but got \(0, 3\)"),
        (nn.Linear(3, 4), (1, 5), RuntimeError, r"Linear cannot take an input of \(1, 5\): .*3"),
        (torch.nn.Linear(3, 4), [1, 5], RuntimeError, r"Linear cannot take an input of \(1, 5\): mat1 and mat2"),
    ],
)
def test_a_mistake_says_what_was_given_and_what_would_do(model, size, error, message):
    with pytest.raises(error, match=message):
        summary(model, size)
    for module in model.modules() if isinstance(model, torch.nn.Module) else ():
        assert not module._forward_hooks


def test_the_input_is_of_the_models_type():
    assert summary(nn.Linear(3, 4).double(), (2, 3)).parameters == 16
    assert summary(nn.ReLU(), (2, 3)).parameters == 0


def test_lazy_layers_are_given_their_sizes():
    assert summary(nn.Sequential(nn.LazyLinear(4)), (2, 3)).parameters == 16
