"""Lookahead: what five steps, all steps and a resumed training make of the weights."""

import pytest
import torch

from torchfromscratch.training.averaging import Lookahead


def wandering(model: torch.nn.Module, step: int) -> None:
    """A step of some optimiser: every weight takes a value that depends on the step alone."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(step)


def test_weights_go_to_their_average_every_five_steps_and_stay_there_after_the_last() -> None:
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    lookahead = Lookahead(model, steps=12)
    weight = slow = 0.0
    for step in range(1, 13):
        wandering(model, step)
        lookahead.step(step)
        weight += step
        if step in (5, 10):
            kept = 0.95**5 * (step / 12) ** 3 if step == 10 else 0.0
            weight = slow = kept * slow + (1 - kept) * weight
        if step == 12:
            weight = slow
        torch.testing.assert_close(model.weight.item(), weight, atol=1e-12, rtol=1e-12)


def test_running_statistics_are_averaged_and_batches_counted_as_they_come() -> None:
    norm = torch.nn.BatchNorm1d(2)
    lookahead = Lookahead(norm, steps=10)
    means = []
    for step in (5, 10):
        norm(step * torch.tensor([[0.0, 4.0], [2.0, 8.0]]))
        means.append(norm.running_mean.clone())
        lookahead.step(step)
    first, second = means
    torch.testing.assert_close(norm.running_mean, 0.95**5 * first + (1 - 0.95**5) * second)
    assert norm.num_batches_tracked == 2


@pytest.mark.parametrize(("steps", "kept"), [(4, 0.0), (5, 0.0), (9, 0.0), (10, 0.95**5)])
def test_a_short_training_ends_at_its_last_average(steps: int, kept: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    lookahead = Lookahead(model, steps)
    for step in range(1, steps + 1):
        wandering(model, step)
        lookahead.step(step)
    learned = {4: 10.0, 5: 15.0, 9: 15.0, 10: 55.0}[steps]
    assert model.weight.item() == pytest.approx(kept * 15.0 + (1 - kept) * learned, rel=1e-12)


def test_a_state_goes_on_as_if_nothing_had_been() -> None:
    runs = []
    for interrupted in (False, True):
        model = torch.nn.Linear(2, 2)
        torch.nn.init.ones_(model.weight), torch.nn.init.zeros_(model.bias)
        lookahead = Lookahead(model, steps=20)
        for step in range(1, 21):
            if interrupted and step == 8:
                state = {name: slow.clone() for name, slow in lookahead.state_dict().items()}
                lookahead = Lookahead(model, steps=20)
                lookahead.load_state_dict(state)
            wandering(model, step)
            lookahead.step(step)
        runs.append(model.weight.detach().clone())
    assert torch.equal(*runs)
