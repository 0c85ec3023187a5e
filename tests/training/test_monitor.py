"""The figures show what they are for."""

import io
import itertools
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import TINY
from torchfromscratch.training import evaluation, monitor
from torchfromscratch.training.cli import main
from torchfromscratch.training.config import resolve
from torchfromscratch.training.data import Dataset, Pictures, load_dataset
from torchfromscratch.training.evaluation import CONFIDENCES, Evaluation, Mistake
from torchfromscratch.training.models import LAYERS, MODELS, build_model, layer_namespace
from torchfromscratch.training.monitor import (
    LOG,
    Monitor,
    confusion_figure,
    feature_maps,
    filter_grid,
    mistakes_figure,
    precision_recall,
)

# names that matplotlib would take for mathematics, cannot encode, or has no room for
NAMES = ["$", "$$", "a$b$c", "$x_^{$", r"\$\frac$", "\udcff", "one\nline", "\0", "", "x" * 300]
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


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
    figure = mistakes_figure([Mistake(confidence=0.996, position=5, predicted=3)], digits)
    (axes,) = figure.axes
    assert (axes.images[0].get_array() == digits.test.images[5, 0].numpy()).all()
    assert axes.get_title().split() == ["predicted", "3,", "99", "%", "sure;", "is", truth]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 16])
def test_the_page_of_mistakes_is_filled(count: int, tmp_path) -> None:
    figure = mistakes_figure([Mistake(0.5, position, 1) for position in range(count)], load_dataset("digits", tmp_path))
    filled = [axes for axes in figure.axes if axes.images or axes.texts]
    assert len(filled) == max(count, 1)
    assert len(figure.axes) - len(filled) < 4
    if count == 0:
        assert filled[0].texts[0].get_text().split() == ["all", "360", "test", "pictures", "are", "right"]


@pytest.mark.parametrize("names", [CIFAR10, list("0123456789"), ["x" * 300] * 10], ids=["words", "digits", "long"])
def test_names_beside_the_matrix_can_be_read_in_a_card(names: list[str]) -> None:
    confusion = torch.full((10, 10), 100)
    figure = confusion_figure(Evaluation(1.0, 0.0, confusion, [], torch.empty(0)), names)
    figure.savefig(io.BytesIO())
    in_a_card = min(370 / figure.bbox.width, 215 / figure.bbox.height)
    (axes,) = figure.axes
    for labels in (axes.get_xticklabels(), axes.get_yticklabels(), axes.texts):
        boxes = [label.get_window_extent() for label in labels]
        assert all(label.get_fontsize() * figure.dpi / 72 * in_a_card >= 9 for label in labels)
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_the_matrix_has_every_count_and_the_share_of_its_row_as_colour() -> None:
    figure = confusion_figure(Evaluation(1.0, 0.0, torch.tensor([[3, 1], [0, 0]]), [], torch.empty(0)), ["a", "b"])
    (axes,) = figure.axes
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [((0, 0), "3"), ((1, 0), "1")]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]


def test_precision_and_recall_are_those_of_answers_that_are_sure_enough() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(200, 4), torch.randint(3, (200,))  # of the last class there are none
    probabilities = logits.softmax(1)
    confidences = evaluation._confidences(logits, labels)
    for label in range(4):
        tp, fp, tn, fn, precision, recall = precision_recall(confidences[label])
        for step in range(CONFIDENCES):
            answers, truth = probabilities[:, label] >= step / CONFIDENCES, labels == label
            counts = [(answers & truth).sum(), (answers & ~truth).sum(), (~answers & ~truth).sum()]
            assert [tp[step], fp[step], tn[step]] == counts
            assert fn[step] == (~answers & truth).sum()
            assert precision[step] == pytest.approx((answers & truth).sum() / answers.sum() if answers.any() else 1)
            assert recall[step] == pytest.approx((answers & truth).sum() / max(truth.sum(), 1))


def test_a_class_whose_probability_is_no_number_is_counted_somewhere() -> None:
    assert evaluation._confidences(torch.full((3, 2), torch.nan), torch.zeros(3, dtype=torch.long)).sum() == 6


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("amp", False, "no"),
        ("amp", True, "yes"),
        ("image_size", None, "no"),
        ("checkpoint_every", 0, "no"),
        ("weight_decay", 0.0, "no"),
        ("seed", 0, 0),
        ("epochs", 1, 1),
        ("lr", 0.05, 0.05),
    ],
)
def test_settings_that_are_off_read_no(setting: str, value: object, shown: object) -> None:
    assert monitor._in_words(setting, value) == shown


def test_feature_maps_are_the_layers_outputs() -> None:
    model = build_model("lenet5", nn=torch.nn, in_channels=1, image_size=8, classes=10)
    image = torch.randn(1, 1, 8, 8)
    maps = feature_maps(model, {"conv1": model.get_submodule("conv1")}, image)
    torch.testing.assert_close(maps["conv1"], model.get_submodule("conv1")(image)[0])


def test_filters_are_enlarged_until_they_can_be_seen() -> None:
    assert filter_grid(torch.randn(6, 1, 5, 5)).shape[2] >= 400


@given(st.text())
def test_names_are_drawn_as_text(name: str) -> None:
    drawn = monitor._drawable(name)
    assert not is_math_text(drawn)
    assert len(drawn.replace(r"\$", "$")) <= 24
    drawn.encode()


def test_figures_draw_names_of_all_kinds() -> None:
    pictures = Pictures(torch.zeros(10, 3, 8, 8, dtype=torch.uint8), torch.arange(10))
    mistakes = [Mistake(0.5, position, 9 - position) for position in range(10)]
    confusion = confusion_figure(Evaluation(1.0, 0.0, torch.eye(10, dtype=torch.int64), [], torch.empty(0)), NAMES)
    for figure in (confusion, mistakes_figure(mistakes, Dataset(pictures, pictures, NAMES))):
        content = io.BytesIO()
        figure.savefig(content)
        assert content.getvalue()


@pytest.mark.parametrize("classes", [50, 51, 2_000])
def test_of_many_classes_the_most_confused_are_drawn(classes: int) -> None:
    confusion = torch.eye(classes, dtype=torch.int32)
    confused = [1, 7, classes - 1]
    confusion[confused, [classes - 2, 4, 2]] = 3
    names = [f"class {label}" for label in range(classes)]
    figure = confusion_figure(Evaluation(1.0, 1.0, confusion, [], torch.empty(0)), names)
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


def test_a_run_s_new_log_is_read_after_the_others(tmp_path) -> None:
    for second in (0, -99):  # of this second, by a host whose name comes late
        (tmp_path / f"{LOG}{int(time.time()) + second}.~.1.0").touch()
    digits = load_dataset("digits", tmp_path)
    monitor = Monitor(tmp_path, resolve({"dataset": "digits"}), digits, step=0)
    monitor.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert names[-1] == monitor.log_path.name
