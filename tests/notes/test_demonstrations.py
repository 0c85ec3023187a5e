"""What the running examples print is what the notes claim, and the scripts run."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from torchfromscratch import functional as F
from torchfromscratch import nn
from torchfromscratch.notes import demonstrations, feature_maps
from torchfromscratch.training import Trainer, UserError, load_dataset, resolve
from torchfromscratch.training.checkpoint import save_checkpoint

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(script, *arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    return ended.value.code


def test_a_linear_layer_explodes_and_a_convolution_does_not():
    rows = demonstrations.parameter_explosion()
    assert "12,289,000" in rows[0][1]
    assert all("1,792" in value for _, value in rows)


def test_sigmoid_loses_the_gradient_with_depth_and_scaled_relu_keeps_it():
    shares = [demonstrations.gradient_share(depth, F.sigmoid, 1.0) for depth in (1, 5, 10)]
    assert shares[0] > 100 * shares[1] > 10_000 * shares[2]
    assert demonstrations.gradient_share(10, F.relu, 2**0.5) > 0.1


def test_leaky_relu_revives_what_relu_leaves_dead():
    first, last, gradient = demonstrations.revival(F.relu)
    assert (first, gradient) == (last, 0)
    first, last, gradient = demonstrations.revival(lambda x: F.leaky_relu(x, 0.1))
    assert last < 0.01 < first
    assert gradient < 0


def test_pointwise_convolution_is_a_linear_layer_on_each_pixel():
    torch.manual_seed(0)
    picture, convolution = torch.randn(2, 8, 5, 5), nn.Conv2d(8, 3, 1)
    by_pixel = F.linear(picture.movedim(1, -1), convolution.weight.flatten(1), convolution.bias).movedim(-1, 1)
    torch.testing.assert_close(convolution(picture), by_pixel)


def test_only_a_convolution_over_time_tells_directions_apart():
    (_, still), (_, moving) = demonstrations.video()
    assert still.endswith("True")
    assert moving == "strongest answer to the right 4, to the left 2"


def test_sobel_answers_at_vertical_edges_alone():
    answers = F.conv2d(demonstrations.square()[None, None], demonstrations.SOBEL[None, None], padding=1)[0, 0]
    assert answers[3].tolist() == [0, 4, 4, 0, 0, -4, -4, 0]
    assert answers[0].abs().sum() == 0


@pytest.mark.parametrize("name", demonstrations.DEMONSTRATIONS)
def test_every_demonstration_can_be_printed(name):
    rows = demonstrations.DEMONSTRATIONS[name]()
    assert rows
    assert all(isinstance(part, str) for row in rows for part in row)


def test_unknown_example_is_a_users_mistake(monkeypatch, capsys):
    assert run("examples", "nothing", monkeypatch=monkeypatch) == 2
    assert "no example is called 'nothing'" in capsys.readouterr().err


def test_feature_maps_are_drawn_for_each_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feature_maps, "LONGEST_SIDE", 48)
    assert run("feature_maps", "--output", tmp_path, monkeypatch=monkeypatch) == 0
    assert [path.stem[3:] for path in sorted(tmp_path.glob("*.png"))] == [
        "picture",
        "conv2d",
        "conv2d_relu",
        "conv2d_leaky_relu",
        "conv2d_relu_max_pool2d",
        "conv2d_relu_avg_pool2d",
    ]


def test_notes_padding_of_2_makes_the_maps_larger():
    stages = feature_maps.through_the_notes_layers(torch.rand(1, 1, 10, 12))
    assert {name: tuple(maps.shape[1:]) for name, maps in stages.items()} == {
        "picture": (1, 10, 12),
        "conv2d": (8, 12, 14),
        "conv2d relu": (8, 12, 14),
        "conv2d leaky_relu": (8, 12, 14),
        "conv2d relu max_pool2d": (8, 6, 7),
        "conv2d relu avg_pool2d": (8, 6, 7),
    }


@pytest.fixture
def trained(tmp_path):
    """A network for digits and its checkpoint."""
    digits = load_dataset("digits", tmp_path)
    trainer = Trainer(resolve({"dataset": "digits"}), digits, tmp_path, device=torch.device("cpu"))
    save_checkpoint(trainer.state_dict(), tmp_path / "best.pt")
    return trainer, tmp_path / "best.pt"


def test_trained_network_is_shown_layer_by_layer_a_picture_of_its_own_data_set(trained):
    trainer, checkpoint = trained
    stages = feature_maps.through_a_trained_network(checkpoint, None)
    assert list(stages)[:4] == ["picture", "conv1 Conv2d", "relu1 ReLU", "pool1 MaxPool2d"]
    image = trainer.dataset.test.images[:1]
    torch.testing.assert_close(stages["picture"], image / 255)
    torch.testing.assert_close(stages["conv1 Conv2d"], trainer.model.conv1(trainer.batches.normalise(image)).detach())


def test_trained_network_is_shown_another_picture_in_the_size_of_its_own(trained, tmp_path):
    trainer, checkpoint = trained
    Image.effect_noise((40, 30), 50).save(tmp_path / "noise.png")
    stages = feature_maps.through_a_trained_network(checkpoint, tmp_path / "noise.png")
    pixels = stages["picture"]
    assert pixels.shape == (1, 1, 8, 8)
    normalised = (pixels - pixels.mean()) / pixels.std(correction=0)
    torch.testing.assert_close(stages["conv1 Conv2d"], trainer.model.conv1(normalised).detach())


def test_a_picture_of_one_colour_is_shown_as_well(trained, tmp_path):
    _, checkpoint = trained
    Image.new("L", (40, 30), 255).save(tmp_path / "white.png")
    stages = feature_maps.through_a_trained_network(checkpoint, tmp_path / "white.png")
    assert all(stage.isfinite().all() for stage in stages.values())


def test_data_set_that_is_gone_asks_for_a_picture(trained):
    trainer, checkpoint = trained
    state = trainer.state_dict()
    save_checkpoint({**state, "config": {**state["config"], "dataset": "folder", "data_dir": "nowhere"}}, checkpoint)
    with pytest.raises(UserError, match="folder in nowhere, cannot be read: name a picture"):
        feature_maps.through_a_trained_network(checkpoint, None)


@pytest.mark.parametrize("channels", [1, 3, 6, 7, 16, 32, 512])
@pytest.mark.parametrize("lowest", [-1.0, 0.0])
def test_every_map_is_drawn_with_a_colour_bar(channels, lowest, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **keywords: drawn.append(figure))
    maps = torch.arange(channels * 6.0).view(1, channels, 2, 3) + lowest
    feature_maps.draw("conv Conv2d", maps, tmp_path / "maps.png")
    axes, bar = drawn[0].axes
    image = axes.images[0]
    shown = image.get_array().compressed()
    assert sorted(shown) == maps.flatten().tolist()
    assert image.get_clim() == (-maps.abs().max() if lowest < 0 else 0, maps.abs().max())
    assert bar.get_ylim() == image.get_clim()


def test_maps_stand_side_by_side_as_they_are():
    maps = torch.arange(24.0).view(4, 2, 3)
    grid = feature_maps._side_by_side(maps)
    assert grid.shape == (5, 7)
    assert torch.equal(grid[:2, 4:], maps[1])
    assert torch.equal(grid[3:, :3], maps[2])
    assert grid[2].isnan().all()
    assert grid[:, 3].isnan().all()


@pytest.mark.parametrize("arguments", [["--checkpoint", "no.pt"], ["no.png"], [__file__], ["--checkpoint", __file__]])
def test_unreadable_files_end_in_one_message(arguments, tmp_path, monkeypatch, capsys):
    assert run("feature_maps", "--output", tmp_path, *arguments, monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--resume" not in line
