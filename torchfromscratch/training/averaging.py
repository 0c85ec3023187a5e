"""A moving average of the weights that the training itself goes on from."""

from typing import Any

import torch

from torchfromscratch._torch_private import foreach_copy_, foreach_lerp_

STEPS_BETWEEN = 5
WEIGHT_OF_THE_PAST = 0.95  # in an average over single steps, at the end of training


class Lookahead:
    """Every few steps the average moves towards the weights θ, and θ is set to it: slow ← d·slow + (1 − d)·θ, θ ← slow.

    d = 0.95⁵ · (step / steps)³ rises from nothing, as early weights are not worth remembering, and the first average is
    the weights of its step; after the last step of all θ is the last average, up to four steps behind. Running
    statistics of batch normalisation are averaged as weights are.

    Sources: M. Zhang et al., "Lookahead Optimizer: k Steps Forward, 1 Step Back", 2019; K. Jordan, "94% on CIFAR-10 in
    3.29 Seconds on a Single GPU", 2024, listing 4.

    Args:
        model: the network; its weights are changed in place.
        steps: optimiser steps of the whole training.
    """

    def __init__(self, model: torch.nn.Module, steps: int) -> None:
        self.model, self.steps = model, steps
        self.slow = {name: weight.detach().clone() for name, weight in self._weights().items()}

    @torch.no_grad()
    def step(self, step: int) -> None:
        """What is to be done after optimiser step number `step`, counted from 1."""
        is_due = step % STEPS_BETWEEN == 0
        if step < STEPS_BETWEEN or not (is_due or step == self.steps):
            return
        weights = self._weights()
        slow = [self.slow[name] for name in weights]
        if is_due:
            decay = WEIGHT_OF_THE_PAST**STEPS_BETWEEN * (step / self.steps) ** 3 if step > STEPS_BETWEEN else 0.0
            foreach_lerp_(slow, list(weights.values()), 1 - decay)
        foreach_copy_(list(weights.values()), slow)

    def state_dict(self) -> dict[str, Any]:
        return self.slow

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, slow in self.slow.items():
            slow.copy_(state[name])

    def _weights(self) -> dict[str, torch.Tensor]:
        """All weights and running statistics, but not batch normalisation's count of batches."""
        return {name: weight for name, weight in self.model.state_dict().items() if weight.is_floating_point()}
