"""The figures show what they are for."""

import torch

from torchfromscratch.training.data import load_dataset
from torchfromscratch.training.evaluation import Mistake
from torchfromscratch.training.models import build_model
from torchfromscratch.training.monitor import feature_maps, filter_grid, mistakes_figure


def test_mistakes_show_the_picture_and_both_labels(tmp_path) -> None:
    digits = load_dataset("digits", tmp_path)
    truth = digits.classes[int(digits.test.labels[5])]
    figure = mistakes_figure([Mistake(confidence=0.875, position=5, predicted=3)], digits)
    axis = figure.axes[0]
    assert (axis.images[0].get_array() == digits.test.images[5, 0].numpy()).all()
    assert axis.get_title() == f"3 88%\nis {truth}"
    assert not figure.axes[1].images


def test_feature_maps_are_the_layers_outputs() -> None:
    model = build_model("lenet5", nn=torch.nn, in_channels=1, image_size=8, classes=10)
    image = torch.randn(1, 1, 8, 8)
    maps = feature_maps(model, {"conv1": model.get_submodule("conv1")}, image)
    torch.testing.assert_close(maps["conv1"], model.get_submodule("conv1")(image)[0])


def test_filters_are_enlarged_until_they_can_be_seen() -> None:
    assert filter_grid(torch.randn(6, 1, 5, 5)).shape[2] >= 400
