"""The learning rate over time, and the optimisers."""

from itertools import pairwise

import pytest
import torch

from torchfromscratch.training.config import resolve
from torchfromscratch.training.models import build_model
from torchfromscratch.training.optimization import build_optimizer, build_scheduler, one_cycle, triangular


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 1800])
def test_one_cycle_rises_to_its_peak_and_falls_to_nothing(steps: int) -> None:
    rates = [one_cycle(step, steps) for step in range(steps + 1)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates[:-1]) > 0
    assert rates[-1] == pytest.approx(0)


def test_one_cycle_peaks_at_the_full_rate_after_a_quarter() -> None:
    assert one_cycle(450, 1800) == 1


@pytest.mark.parametrize("steps", [2, 5, 490])
def test_triangular_rises_to_its_peak_and_falls_in_straight_lines(steps: int) -> None:
    rates = [triangular(step, steps) for step in range(steps + 1)]
    peak = rates.index(max(rates))
    assert (rates[0], rates[peak]) == (0.2, 1)
    assert rates[-1] == pytest.approx(0.07)
    for line in (rates[: peak + 1], rates[peak:]):
        slopes = [after - before for before, after in pairwise(line)]
        assert slopes == pytest.approx(slopes[:1] * len(slopes))
    if steps == 490:
        assert peak == int(0.23 * steps)


def test_norms_biases_have_a_rate_of_their_own_and_all_weights_decay_alike() -> None:
    config = resolve({"model": "airbench", "norm_bias_lr": 8.0, "lr": 0.5, "weight_decay": 0.01})
    model = build_model("airbench", nn=torch.nn, in_channels=3, image_size=32, classes=10)
    optimizer = build_optimizer(config, model)
    scheduler = build_scheduler(config, optimizer, 100)
    rest, biases = optimizer.param_groups
    assert [len(group["params"]) for group in (rest, biases)] == [1 + 6 + 1, 6]
    assert (biases["initial_lr"], biases["weight_decay"]) == (0.5 * 8, 0.01 / 8)
    for _ in range(30):
        optimizer.step()
        scheduler.step()
        assert biases["lr"] == pytest.approx(8 * rest["lr"])
        assert biases["lr"] * biases["weight_decay"] == pytest.approx(rest["lr"] * rest["weight_decay"])
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"whiten.weight"} | {f"blocks.{block}.norm{norm}.weight" for block in range(3) for norm in (1, 2)}
