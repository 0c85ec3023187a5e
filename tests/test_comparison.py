"""A step of a model on torch.nn and by hand: what is made equal before, and left as it was after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from torchfromscratch.comparison import by_hand, compare, disable_dropout, fill_zero_weights, take_step


class Distances(nn.Module):
    """Computes its buffer when it knows its input's size, as convolutional vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("distances", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.distances) != len(x):
            self.distances = torch.arange(1.0, len(x) + 1)
        return self.linear(x) * self.distances[:, None]


def test_a_buffer_that_the_forward_replaces_is_put_back() -> None:
    model, inputs = nn.Sequential(Distances()), [torch.rand(4, 3)]
    buffer = model[0].distances
    expected = take_step(model, inputs)
    assert model[0].distances is buffer
    assert expected.buffers["0.distances"].tolist() == [1, 2, 3, 4]
    with by_hand(model):
        comparison = compare(model, inputs, expected)
    assert max(comparison.output_error, comparison.gradient_error, comparison.buffer_error) < 1e-6
    assert model[0].distances is buffer
    assert buffer.tolist() == [0]


class DropPath(nn.Module):
    """As timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.drop_prob = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty_like(x).bernoulli_(1 - self.drop_prob)


@pytest.mark.parametrize("kind", [lambda: nn.Dropout1d(), lambda: StochasticDepth(0.5, "row"), DropPath])
def test_nothing_is_dropped_after_disable_dropout(kind: type[nn.Module]) -> None:
    model, x = nn.Sequential(kind()), torch.ones(64, 1, 2)
    assert not torch.equal(model(x), x)
    disable_dropout(model)
    assert torch.equal(model(x), x)


def test_zero_factors_are_filled_and_zero_biases_left() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    fill_zero_weights(model)
    assert {name: bool(parameter.any()) for name, parameter in model.named_parameters()} == {
        "0.weight": True,
        "0.bias": False,
        "1.weight": True,
        "1.bias": False,
    }
