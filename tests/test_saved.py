"""What a layer keeps for its backward pass: what torch.nn's keeps, or less, whichever of its arguments need gradients.

What is kept decides how much memory training takes, which in-place operations beside a layer autograd lets pass, and
whether a backward pass may run twice.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import torchfromscratch
from tests import lacks
from tests import subjects as harness
from tests.subjects import Function, Subject, assert_equal, cotangent, repeatable, tensors_of

GATED = ["lstm_cell", "gru_cell", "lstm", "lstm projected", "lstm packed both ways", "LSTMCell", "LSTMCell unbatched"]

# Cases where more memory is kept than torch.nn's layer keeps, for one of the subsets at least.
MORE_MEMORY = {
    **dict.fromkeys(
        [*GATED, "LSTM deep both ways batch first", "LSTM projected", "GRU packed both ways"],
        "the gates follow from u and the states, which are kept where torch keeps the gates: less in long sequences, "
        "more of one step, or where W_hh needs no gradient",
    ),
    **dict.fromkeys(
        [
            "TransformerEncoderLayer",
            "TransformerEncoderLayer norm_first gelu",
            "TransformerDecoderLayer",
            "Transformer",
        ],
        "P is kept, which torch's fused attention computes again",
    ),
    **dict.fromkeys(
        [
            "ctc_loss mean",
            "ctc_loss sum",
            "ctc_loss none",
            "ctc_loss one after the other, another blank",
            "ctc_loss zero_infinity",
        ],
        "two lengths of each sample are kept, where torch keeps its loss: eight bytes a sample; and targets in rows",
    ),
    "attention dropout": "P and its noise are kept, torch keeps their product if the values alone need a gradient",
    **dict.fromkeys(
        ["multi_margin_loss", "multi_margin_loss squared weight", "multi_margin_loss one"],
        "which classes count is marked: a byte for each score",
    ),
    "rms_norm": "x and one mean square a row are kept, torch keeps x̂ alone if the weight alone needs a gradient",
}

# Cases where another argument is kept than torch.nn's layer keeps, which must not be changed then.
OTHER_ARGUMENTS = {
    **dict.fromkeys([*GATED, "gru", "GRUCell"], "as above: the state that a step starts from, and W_hh"),
    **dict.fromkeys(
        [
            "attention wider values, no batch",
            "attention boolean mask",
            "attention additive mask",
            "attention broadcast",
            "attention grouped queries",
            "attention dropout",
        ],
        "queries, keys and values are kept themselves, as in torch's fused kernel, where its other one, which it takes "
        "for these, keeps copies that it has scaled, or repeated: as many bytes",
    ),
    "tanhshrink": "x is kept, of which tanh²x is exact near 0; torch keeps tanh x, of which 1 − (1 − tanh²x) is not",
    "kl_div log_target": "input and target are kept themselves, where torch keeps the target's exponential and their "
    "difference: as many bytes",
    "poisson_nll_loss": "log-rates are kept, where torch keeps the rates",
    "multilabel_soft_margin_loss": "x is kept, where torch keeps log σ(x) and log σ(−x)",
    "rms_norm": "x, as above: x̂ is no output, and computed again from it",
}


@pytest.fixture(params=harness.subjects(), ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    harness.skip_if_left_out(request, request.param.leave_out)
    if request.param.name == "attention causal" and (reason := lacks.fused_causal_attention()):
        pytest.skip(reason)
    return request.param


class Kept(NamedTuple):
    """What is saved by a forward pass."""

    bytes: int
    arguments: set[int]
    outputs: set[int]


def kept(function: Function, arguments: Sequence[Tensor], but: Collection[int] = ()) -> Kept:
    """Bytes are those of all storages but some: a saved view keeps the whole of what it views."""
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        outputs = tensors_of(repeatable(function)(*arguments))
    bytes_of = {address(t): t.untyped_storage().nbytes() for t in saved if address(t) not in but}

    def among(tensors: Sequence[Tensor]) -> set[int]:
        return {number for number, tensor in enumerate(tensors) if address(tensor) in bytes_of}

    return Kept(sum(bytes_of.values()), among(arguments), among(outputs))


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Which of `count` arguments require gradients: all subsets of a few; of many all, one, and all but one."""
    every = range(count)
    if count <= 4:
        return itertools.chain(*[itertools.combinations(every, size) for size in every], [tuple(every)])
    return itertools.chain([(n,) for n in every], [(*every[:n], *every[n + 1 :]) for n in every], [tuple(every)])


def with_gradients_for(subject: Subject, requiring: Sequence[int]) -> list[Tensor]:
    return [tensor.requires_grad_(number in requiring) for number, tensor in enumerate(subject.inputs())]


def test_keeps_what_torch_keeps_or_less(subject: Subject) -> None:
    """For each subset of the arguments that require gradients."""
    larger, others = [], []
    for requiring in subsets(len(subject.inputs())):
        arguments = with_gradients_for(subject, requiring)
        ours, theirs = kept(subject.ours, arguments), kept(subject.theirs, arguments)
        if ours.bytes > theirs.bytes:
            larger.append((requiring, ours.bytes, theirs.bytes))
        if not (ours.arguments <= theirs.arguments and ours.outputs <= theirs.outputs):
            others.append((requiring, ours, theirs))
    for found, table in ((larger, MORE_MEMORY), (others, OTHER_ARGUMENTS)):
        assert bool(found) == (subject.name in table), found  # an entry without an effect is to be deleted


def gradients(outputs: Sequence[Tensor], arguments: Sequence[Tensor]) -> list[Tensor]:
    differentiable = [output for output in outputs if output.requires_grad]
    return list(torch.autograd.grad(differentiable, arguments, map(cotangent, differentiable), materialize_grads=True))


def changed_argument(number: int) -> Callable[..., list[Tensor]]:
    def program(outputs: list[Tensor], arguments: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            arguments[number].mul_(0.5)
        return gradients(outputs, arguments)

    return program


def changed_output(number: int) -> Callable[..., list[Tensor]]:
    def program(outputs: list[Tensor], arguments: list[Tensor]) -> list[Tensor]:
        outputs[number].mul_(2)
        return gradients(outputs, arguments)

    return program


def detached_output(number: int) -> Callable[..., list[Tensor]]:
    return lambda outputs, arguments: [outputs[number].detach_()]


def twice(outputs: list[Tensor], arguments: list[Tensor]) -> list[Tensor]:
    gradients(outputs, arguments)
    return gradients(outputs, arguments)


def outcome(program: Callable[..., list[Tensor]], function: Function, subject: Subject) -> list[Tensor] | None:
    """What a program between the forward and the backward pass finds, None if it raises."""
    arguments = subject.inputs()
    outputs = tensors_of(repeatable(function)(*arguments))
    try:
        return program(outputs, arguments)
    except RuntimeError:
        return None


def test_lets_pass_in_place_what_torch_lets_pass(subject: Subject) -> None:
    """A changed argument or output, a detached output, a second backward pass: the same result, or the right one."""
    arguments = subject.inputs()
    outputs = tensors_of(repeatable(subject.theirs)(*arguments))
    right = gradients(outputs, arguments)
    programs: list[tuple[Any, list[Tensor] | None]] = [(twice, right)]
    if subject.name not in OTHER_ARGUMENTS:
        programs += [(changed_argument(number), right) for number in range(len(arguments))]
    for number, output in enumerate(outputs):
        if output.is_floating_point():
            programs += [(changed_output(number), None), (detached_output(number), None)]
    for program, expected in programs:
        theirs, ours = outcome(program, subject.theirs, subject), outcome(program, subject.ours, subject)
        assert theirs is None or ours is not None, program.__qualname__
        expected = expected if theirs is None else theirs
        if ours is not None and expected is not None:
            assert_equal(ours, expected, subject.precision)


def network() -> torch.nn.Module:
    """Convolutions, norms, pooling and a transformer's layer, as in a ResNet and a vision transformer."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.GroupNorm(2, 8),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Flatten(2),
        nn.LayerNorm(64),
        nn.Linear(64, 32),
        nn.TransformerEncoderLayer(32, 2, 32, 0.0, batch_first=True),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


@pytest.mark.parametrize("trained", ["last layer", "first layer", "biases"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_frozen_network_keeps_what_torchs_keeps_or_less(trained: str, training: bool) -> None:
    """With few of its parameters to be trained; 1.05 times at most, for the attention's P."""
    torch.manual_seed(0)
    theirs = network().train(training)
    names = [name for name, _ in theirs.named_parameters()]
    for name, parameter in theirs.named_parameters():
        chosen = {"last layer": name in names[-2:], "first layer": name in names[:2], "biases": name.endswith("bias")}
        parameter.requires_grad_(chosen[trained])
    ours, x = torchfromscratch.convert(copy.deepcopy(theirs)), torch.randn(2, 3, 16, 16)
    parameters = {address(parameter) for module in (ours, theirs) for parameter in module.parameters()}
    bytes_of = [kept(module, [x], but=parameters).bytes for module in (ours, theirs)]
    assert bytes_of[0] <= 1.05 * bytes_of[1]
