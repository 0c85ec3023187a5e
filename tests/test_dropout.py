"""Dropout: torch's own masks, what is kept on average, and the special probabilities."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import torchfromscratch.functional as F

FUNCTIONS = ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"]
SIZES = {"dropout1d": (40, 30, 3), "dropout3d": (10, 30, 2, 3, 2)}


def seeded(function: Callable[..., Tensor], *args: object, **kwargs: object) -> Tensor:
    torch.manual_seed(7)
    return function(*args, **kwargs)


def input_for(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SIZES.get(name, (20, 30, 3, 2)), generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["dropout", "dropout2d"])
def test_same_seed_drops_bit_for_bit_what_torch_drops(
    name: str, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    results = []
    for namespace in (F, torch.nn.functional):
        input = input_for(name, dtype).to(memory_format=memory_format).requires_grad_()
        output = seeded(getattr(namespace, name), input, 0.3)
        results.append((output, *torch.autograd.grad(output.square().sum(), input)))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_agrees_with_torch(name: str, p: float) -> None:
    input = input_for(name, torch.float64)
    ours = seeded(getattr(F, name), input, p, training=True)
    theirs = seeded(getattr(torch.nn.functional, name), input, p, training=True)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_take_the_path_of_the_output(name: str) -> None:
    input = torch.randn(2, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    input = input[:, :, 0] if name == "dropout1d" else input
    drop = lambda x: seeded(getattr(F, name), x, 0.4, training=True)  # noqa: E731
    assert torch.autograd.gradcheck(drop, input, check_forward_ad=True, check_batched_grad=True)
    torch.manual_seed(7)
    mapped = torch.func.jacfwd(lambda x: getattr(F, name)(x, 0.4, training=True), randomness="same")(input)
    torch.testing.assert_close(mapped, torch.autograd.functional.jacobian(drop, input))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_mean_is_kept(p: float) -> None:
    count = 200_000
    output = seeded(F.dropout, torch.ones(count), p)
    deviation = (p / (1 - p) / count) ** 0.5
    assert abs(output.mean().item() - 1) < 5 * deviation
    assert abs((output == 0).float().mean().item() - p) < 5 * (p * (1 - p) / count) ** 0.5


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    input = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    output = seeded(F.alpha_dropout, input, 0.3, training=True)
    assert abs(output.mean().item()) < 0.02
    assert abs(output.var().item() - 1) < 0.02


@pytest.mark.filterwarnings("ignore:dropout2d takes")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.7, False), (1.0, False)])
def test_hands_back_the_input_itself_when_nothing_is_dropped(name: str, p: float, training: bool) -> None:
    input = torch.ones(2, 3, 4, 4, 4) if name == "dropout3d" else torch.ones(2, 3, 4)
    assert getattr(F, name)(input, p, training=training) is input


@pytest.mark.filterwarnings("ignore:dropout2d takes")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_drops_everything_without_drawing(name: str) -> None:
    input = torch.ones(2, 3, 4, 4, 4) if name == "dropout3d" else torch.ones(2, 3, 4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(getattr(F, name)(input, 1.0, training=True), torch.zeros_like(input))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:dropout2d takes")
@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_inplace_overwrites_the_input(name: str, unbatched: bool) -> None:
    input = input_for(name)
    input = input[0] if unbatched else input
    expected = seeded(getattr(F, name), input, 0.4, training=True)
    output = seeded(getattr(F, name), input, 0.4, training=True, inplace=True)
    assert output is input
    assert torch.equal(input, expected)


@pytest.mark.parametrize("name", ["dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"])
def test_channels_fall_as_a_whole(name: str) -> None:
    input = torch.ones(SIZES.get(name, (20, 30, 3, 2)))
    flat = seeded(getattr(F, name), input, 0.5, training=True).reshape(*input.shape[:2], -1)
    assert torch.equal(flat, flat[..., :1].expand_as(flat))
    assert len(flat.unique()) == 2


def test_vmap_draws_for_each_or_for_all_as_asked() -> None:
    input = torch.ones(4, 50)
    drop = lambda x: F.dropout(x, 0.5)  # noqa: E731
    same = torch.func.vmap(drop, randomness="same")(input)
    different = torch.func.vmap(drop, randomness="different")(input)
    assert torch.equal(same, same[:1].expand_as(same))
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="random"):
        torch.func.vmap(drop)(input)


def test_keeps_one_byte_an_element_for_the_backward_pass() -> None:
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor), lambda packed: packed):
        F.dropout(torch.ones(100, requires_grad=True))
    assert [(tensor.dtype, tensor.numel()) for tensor in saved] == [(torch.bool, 100)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "size", "p", "dtype"),
    [
        ("dropout", (3,), -0.1, torch.float32),
        ("dropout", (3,), 1.1, torch.float32),
        ("dropout", (3,), float("nan"), torch.float32),
        ("dropout", (3,), 0.5, torch.int64),
        ("dropout", (3,), 0.5, torch.bool),
        ("dropout1d", (2, 3, 4, 5), 0.5, torch.float32),
        ("dropout1d", (3,), 0.5, torch.float32),
        ("dropout2d", (3,), 0.5, torch.float32),
        ("feature_alpha_dropout", (3,), 0.5, torch.float32),
        ("alpha_dropout", (3,), 2.0, torch.float32),
    ],
    ids=str,
)
def test_raises_what_torch_raises(name: str, size: tuple, p: float, dtype: torch.dtype) -> None:
    input = torch.ones(size, dtype=dtype)
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        getattr(torch.nn.functional, name)(input, p, training=True)
    with pytest.raises(theirs.type):
        getattr(F, name)(input, p, training=True)


def test_inplace_on_a_parameter_raises() -> None:
    with pytest.raises(RuntimeError, match="leaf"):
        F.dropout(torch.ones(3, requires_grad=True), inplace=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
def test_everything_can_be_dropped_of_integers_too(dtype: torch.dtype) -> None:
    input = torch.ones(2, 3, dtype=dtype)
    torch.testing.assert_close(F.dropout(input, 1.0), torch.nn.functional.dropout(input, 1.0))
