"""The profile of a step times every layer in it, both ways, and knows what a convolution multiplies."""

import pytest

from torchfromscratch.training.config import resolve
from torchfromscratch.training.models import LAYERS
from torchfromscratch.training.profiling import (
    BACKWARD,
    BETWEEN,
    FORWARD,
    LOSS,
    OPTIMIZER,
    STEP,
    ProfiledStep,
    peak_rate,
    profile,
    tables,
)

SHAPE = (2, 3, 16, 16)


@pytest.fixture(scope="module", params=["smallvgg-bn", "airbench", "vit"])
def steps(request: pytest.FixtureRequest) -> dict[str, ProfiledStep]:
    return {layers: ProfiledStep(resolve({"model": request.param, "layers": layers}), SHAPE) for layers in LAYERS}


def test_each_layer_is_timed_both_ways_and_all_parts_fit_into_the_step(steps: dict[str, ProfiledStep]) -> None:
    for step in steps.values():
        step.run()
        seconds = step.run()
        parts = {(name, part) for name in step.layers for part in (FORWARD, BACKWARD)}
        # the transformer's dropout, of p = 0, hands on what it gets
        parts -= {(name, BACKWARD) for name, layer in step.layers.items() if layer.kind == "Dropout"}
        assert set(seconds) == parts | {(OPTIMIZER, ""), (BETWEEN, ""), (STEP, "")}
        assert all(taken > 0 for taken in seconds.values())  # what is between the parts, too: they fit into the step
        assert list(step.layers)[-1] == LOSS


def test_multiplications_are_those_of_the_definition(steps: dict[str, ProfiledStep]) -> None:
    step = steps["scratch"]
    step.run()
    named = dict(step.model.named_modules())
    convolutions = [name for name, layer in step.layers.items() if layer.kind == "Conv2d"]
    first, *others = convolutions
    for name in convolutions:
        layer, weight = step.layers[name], named[name].weight
        _, outputs, height, width = layer.output
        assert layer.products[FORWARD] == SHAPE[0] * outputs * height * width * weight[0].numel()
    assert all(step.layers[name].products[BACKWARD] == 2 * step.layers[name].products[FORWARD] for name in others)
    trained = named[first].weight.requires_grad  # airbench's whitening is not, and pictures want no gradient
    assert step.layers[first].products[BACKWARD] == trained * step.layers[first].products[FORWARD]


def test_the_tables_name_each_kind_and_each_layer(steps: dict[str, ProfiledStep]) -> None:
    seconds = profile(steps, repeats=1, warm_up=0)
    by_kind, by_layer = tables(list(steps.values()), list(seconds.values()), peak_rate(repeats=1)).split("\n\n")
    layers = steps["torch"].layers
    rows = [line.split(" | ")[0].strip("| ") for line in by_kind.splitlines()[2:]]
    assert rows == [*dict.fromkeys(layer.kind for layer in layers.values()), OPTIMIZER, BETWEEN, STEP]
    assert len(by_layer.splitlines()) == 2 + 2 * len(layers)
    assert by_kind.splitlines()[-1].count("100.0%") == 2
