"""Settings: what the user gave, then what is good for the optimiser, the model, the data set, and for all."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from torchfromscratch.training.checkpoint import load_checkpoint
from torchfromscratch.training.cli import COLUMNS, build_parser, main
from torchfromscratch.training.config import DATASET_DEFAULTS, MODEL_DEFAULTS, OPTIMIZER_DEFAULTS, Config, resolve
from torchfromscratch.training.models import MODELS


@pytest.mark.parametrize("dataset", DATASET_DEFAULTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZER_DEFAULTS)
def test_every_data_set_model_and_optimiser_has_all_settings(dataset: str, model: str, optimizer: str) -> None:
    config = resolve({"dataset": dataset, "model": model, "optimizer": optimizer})
    assert (config.dataset, config.model, config.optimizer) == (dataset, model, optimizer)


@pytest.mark.parametrize("dataset", DATASET_DEFAULTS)
def test_help_shows_the_defaults_of_every_model_and_the_usual_model_first(dataset: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    table = [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in table if len(line) == 9 and line[0] == dataset]
    assert lines[0][1].split(", ")[0] == resolve({"dataset": dataset}).model
    shown = {model: settings for _, models, *settings in lines for model in models.split(", ")}
    assert set(shown) == set(MODELS)
    for model, settings in shown.items():
        config = resolve({"dataset": dataset, "model": model})
        numbers = (config.epochs, config.batch_size, config.lr, config.weight_decay, config.crop_padding)
        epochs, batch, optimizer, rate, decay, crop, flip = settings
        assert tuple(map(float, (epochs, batch, rate, decay, crop))) == numbers
        assert (optimizer, flip) == (config.optimizer, config.flip)


def test_help_tells_of_every_setting_what_it_is_if_it_is_not_given() -> None:
    settings = {field.name for field in fields(Config)}
    for action in build_parser()._actions:
        if action.dest in settings:
            assert "default: " in (action.help or ""), action.dest


def test_help_tells_where_a_model_s_default_is_another_than_the_usual() -> None:
    shown_in_the_table = set(COLUMNS)
    helps = {action.dest: action.help or "" for action in build_parser()._actions}
    for model, settings in MODEL_DEFAULTS.items():
        for setting in set(settings) - shown_in_the_table:
            value = getattr(resolve({"model": model}), setting)
            assert f"{model}: {'yes' if value is True else value}" in helps[setting]


@pytest.mark.parametrize("dataset", DATASET_DEFAULTS)
@pytest.mark.parametrize("model", MODELS)
def test_no_mirror_image_is_asked_about_that_training_never_shows(dataset: str, model: str) -> None:
    given = {"dataset": dataset, "model": model}
    for config in (resolve(given), resolve({**given, "flip": "none"})):
        assert config.test_views == "single" or config.flip != "none"
    assert resolve({**given, "flip": "none", "test_views": "mirrored"}).test_views == "mirrored"


@pytest.mark.parametrize(
    ("given", "lr"),
    [
        ({}, 0.05),
        ({"dataset": "digits"}, 0.05),
        ({"dataset": "digits", "optimizer": "adam"}, 1e-3),
        ({"dataset": "digits", "optimizer": "adam", "lr": 0.3}, 0.3),
        ({"dataset": "digits", "model": "vit"}, 1e-3),
        ({"dataset": "digits", "model": "vit", "optimizer": "sgd"}, 0.05),
        ({"model": "vit", "lr": 0.3}, 0.3),
    ],
)
def test_the_more_particular_default_wins_and_the_user_over_all(given: dict[str, object], lr: float) -> None:
    assert resolve(given).lr == lr


def test_what_was_not_given_is_none_and_takes_the_default() -> None:
    assert resolve({"dataset": None, "lr": None}) == resolve({})


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_defaults_teach_every_model_the_digits(model: str, in_directory: Path) -> None:
    assert main(["--dataset", "digits", "--device", "cpu", "--model", model, "--name", "run"]) == 0
    assert load_checkpoint(Path("runs/run/last.pt"))["rows"][-1]["test_accuracy"] >= 0.95


@pytest.mark.parametrize("is_there", [True, False])
def test_channels_lie_last_on_cuda(is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run takes a GPU, and the user has not said otherwise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    assert resolve({"device": "cuda"}).channels_last
    assert resolve({}).channels_last == is_there
    assert not resolve({"device": "cpu"}).channels_last
    assert not resolve({"device": "cuda", "channels_last": False}).channels_last
