"""The learning rate over time, and the optimisers."""

import pytest

from torchfromscratch.training.optimization import one_cycle


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
