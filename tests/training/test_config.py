"""Settings: what the user gave, then what is good for the optimiser, the model, the data set, and for all."""

import pytest

from torchfromscratch.training.config import DATASET_DEFAULTS, OPTIMIZER_DEFAULTS, resolve


@pytest.mark.parametrize("dataset", DATASET_DEFAULTS)
@pytest.mark.parametrize("optimizer", OPTIMIZER_DEFAULTS)
def test_every_data_set_and_optimiser_has_all_settings(dataset: str, optimizer: str) -> None:
    config = resolve({"dataset": dataset, "optimizer": optimizer})
    assert (config.dataset, config.optimizer) == (dataset, optimizer)


@pytest.mark.parametrize(
    ("given", "lr"),
    [
        ({}, 0.05),
        ({"dataset": "digits"}, 0.05),
        ({"dataset": "digits", "optimizer": "adam"}, 1e-3),
        ({"dataset": "digits", "optimizer": "adam", "lr": 0.3}, 0.3),
    ],
)
def test_the_more_particular_default_wins_and_the_user_over_all(given: dict[str, object], lr: float) -> None:
    assert resolve(given).lr == lr


def test_what_was_not_given_is_none_and_takes_the_default() -> None:
    assert resolve({"dataset": None, "lr": None}) == resolve({})
