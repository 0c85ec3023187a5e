"""The figures show what they are for."""

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import TINY
from torchfromscratch.training import monitor
from torchfromscratch.training.cli import main
from torchfromscratch.training.config import resolve
from torchfromscratch.training.data import Dataset, Pictures, load_dataset
from torchfromscratch.training.evaluation import Evaluation, Mistake
from torchfromscratch.training.models import LAYERS, MODELS, build_model, layer_namespace
from torchfromscratch.training.monitor import Monitor, confusion_figure, feature_maps, filter_grid, mistakes_figure

# names that matplotlib would take for mathematics, cannot encode, or has no room for
NAMES = ["$", "$$", "a$b$c", "$x_^{$", r"\$\frac$", "\udcff", "one\nline", "\0", "", "x" * 300]


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("name", MODELS)
def test_tensorboard_draws_the_graph_of(name: str, layers: str, tmp_path, capsys) -> None:
    digits = load_dataset("digits", tmp_path)
    config = resolve({"dataset": "digits", "model": name, "layers": layers})
    model = build_model(name, nn=layer_namespace(layers), in_channels=1, image_size=8, classes=10).eval()
    log = Monitor(tmp_path, config, digits, step=0)
    log.begin(model, torch.zeros(1, 1, 8, 8))
    log.close()
    drawn = " ".join(node.name for node in EventAccumulator(str(tmp_path)).Reload().Graph().node)
    for layer, module in model.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.LayerNorm, torch.nn.MultiheadAttention)):
            assert f"[{layer.rpartition('.')[2]}]" in drawn
    assert capsys.readouterr().out == ""


def test_a_graph_that_cannot_be_drawn_is_told_in_one_line(in_directory, monkeypatch, capsys) -> None:
    def trace(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("Graphs differed across invocations!\n" * 500)

    monkeypatch.setattr(torch.jit, "trace", trace)
    assert main([*TINY, "--epochs", "1"]) == 0
    printed = capsys.readouterr()
    assert "Graphs differed" not in printed.out
    (line,) = (line for line in printed.err.splitlines() if "Graphs differed" in line)
    assert line.startswith("note: the graph could not be written")
    assert len(line) < 500


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


@given(st.text())
def test_names_are_drawn_as_text(name: str) -> None:
    drawn = monitor._drawn(name)
    assert not is_math_text(drawn)
    assert len(drawn.replace(r"\$", "$")) <= 24
    drawn.encode()


def test_figures_draw_names_of_all_kinds() -> None:
    pictures = Pictures(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.arange(10))
    mistakes = [Mistake(0.5, position, 9 - position) for position in range(10)]
    confusion = confusion_figure(Evaluation(1.0, 0.0, torch.eye(10, dtype=torch.int64), []), NAMES)
    for figure in (confusion, mistakes_figure(mistakes, Dataset(pictures, pictures, NAMES))):
        content = io.BytesIO()
        figure.savefig(content)
        assert content.getvalue()


@pytest.mark.parametrize("classes", [50, 51, 2_000])
def test_of_many_classes_the_most_confused_are_drawn(classes: int) -> None:
    confusion = torch.eye(classes, dtype=torch.int32)
    confused = [1, 7, classes - 1]
    confusion[confused, [classes - 2, 4, 2]] = 3
    figure = confusion_figure(Evaluation(1.0, 1.0, confusion, []), [f"class {label}" for label in range(classes)])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == 50
    assert {f"class {label}" for label in confused} <= set(labels)
    assert labels == sorted(labels, key=lambda label: int(label.split()[1]))
    assert figure.get_suptitle() == ("" if classes == 50 else f"the 50 of {classes:,} classes with the most mistakes")


def test_large_pictures_are_drawn_small() -> None:
    images = torch.zeros(1, 1, 4000, 4000, dtype=torch.uint8)
    assert max(monitor._grid(images.float().expand(64, -1, -1, -1)).shape) < 2200
    pictures = Pictures(images, torch.tensor([0]))
    figure = mistakes_figure([Mistake(0.5, 0, 1)], Dataset(pictures, pictures, ["a", "b"]))
    assert max(figure.axes[0].images[0].get_array().shape) <= 256
