"""Recurrent layers against torch.nn's: every way of calling them, errors, dropout, accuracy, tracing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils import _pytree as pytree

import torchfromscratch
from tests import lacks
from tests.subjects import assert_equal, largest_error, pull_back, scale

NAMESPACES = {"ours": torchfromscratch.nn, "theirs": torch.nn}
SEQUENCES = {
    "RNN": lambda nn, *args, **options: nn.RNN(*args, **options),
    "RNN relu": lambda nn, *args, **options: nn.RNN(*args, nonlinearity="relu", **options),
    "LSTM": lambda nn, *args, **options: nn.LSTM(*args, **options),
    "LSTM projected": lambda nn, *args, **options: nn.LSTM(*args, proj_size=2, **options),
    "GRU": lambda nn, *args, **options: nn.GRU(*args, **options),
}
INPUTS, HIDDEN = 4, 3


def tensors_of(answer: Any) -> list[Tensor]:
    """The tensors of an answer that are differentiable, those of packed sequences too."""
    answer = pytree.tree_map(
        lambda part: part.data if isinstance(part, PackedSequence) else part,
        answer,
        is_leaf=lambda part: isinstance(part, PackedSequence),
    )
    return pytree.tree_leaves(answer)


def twins(kind: str, *args: Any, dtype: torch.dtype = torch.float64, **options: Any) -> list[torch.nn.Module]:
    """Our module and torch.nn's with the same weights, wider than they are initialised."""
    ours, theirs = [SEQUENCES[kind](nn, *args, **options).to(dtype) for nn in NAMESPACES.values()]
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.uniform_(-1, 1)
    ours.load_state_dict(theirs.state_dict())
    return [ours, theirs]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any], list[Tensor], Callable[[torch.nn.Module], Any]]:
    """A kind of layer, its options, the tensors of a call, and the call."""
    kind = draw(st.sampled_from(sorted(SEQUENCES)))
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    layout = draw(st.sampled_from(["batch", "single", "sorted", "unsorted"]))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    if layout == "sorted":
        lengths.sort(reverse=True)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    torch.manual_seed(draw(st.integers(0, 2**16)))
    batch, steps = len(lengths), lengths[0]
    if layout == "batch":
        inputs = [tensor(*((batch, steps) if options["batch_first"] else (steps, batch)), INPUTS)]
    elif layout == "single":
        inputs = [tensor(steps, INPUTS)]
    else:
        inputs = [tensor(length, INPUTS) for length in lengths]
    scans = options["num_layers"] * (1 + options["bidirectional"])
    rows = (scans,) if layout == "single" else (scans, batch)
    states = []
    if draw(st.booleans()):
        widths = {"LSTM": [HIDDEN, HIDDEN], "LSTM projected": [2, HIDDEN]}.get(kind, [HIDDEN])
        states = [tensor(*rows, width) for width in widths]

    def call(module: torch.nn.Module) -> Any:
        packed = layout in ("sorted", "unsorted")
        input = pack_sequence(inputs, enforce_sorted=layout == "sorted") if packed else inputs[0]
        return module(input, tuple(states) if len(states) == 2 else states[0]) if states else module(input)

    return kind, options, [*inputs, *states], call


@given(calls())
@settings(max_examples=60, deadline=None)
def test_every_way_of_calling_equals_torch(drawn: tuple) -> None:
    """Outputs, last states, their strides, and the gradients of inputs, states and weights."""
    kind, options, tensors, call = drawn
    modules = twins(kind, INPUTS, HIDDEN, **options)
    ours, theirs = [call(module) for module in modules]
    assert pytree.tree_structure(ours) == pytree.tree_structure(theirs)
    assert [y.stride() for y in tensors_of(ours)] == [y.stride() for y in tensors_of(theirs)]
    for part, same in zip(ours[:1], theirs[:1], strict=True):
        if isinstance(same, PackedSequence):
            assert_equal([part.batch_sizes], [same.batch_sizes])
            assert (part.sorted_indices is None) == (same.sorted_indices is None)
    assert_equal(
        *[
            pull_back(tensors_of(answer), [*tensors, *module.parameters()])
            for answer, module in zip((ours, theirs), modules, strict=True)
        ]
    )


@given(calls())
@settings(max_examples=15, deadline=None)
def test_gradients_of_gradients_equal_torchs(drawn: tuple) -> None:
    kind, options, tensors, call = drawn
    second = []
    for module in twins(kind, INPUTS, HIDDEN, **options):
        sources = [*tensors, *module.parameters()]
        loss = sum([(y * y).sum() for y in tensors_of(call(module))])
        first = torch.autograd.grad(loss, sources, create_graph=True)
        second.append(torch.autograd.grad(sum([(g * g).sum() for g in first]), sources))
    assert_equal(*second)


def sequence(kind: str = "GRU", **options: Any) -> Callable[[Any], Any]:
    return lambda nn: SEQUENCES[kind](nn, INPUTS, HIDDEN, **options)


def packed(*lengths: int, features: int = INPUTS, dtype: torch.dtype = torch.float32) -> PackedSequence:
    return pack_sequence([torch.zeros(length, features, dtype=dtype) for length in lengths])


zeros = torch.zeros
DOUBLE = torch.float64
MISTAKES: dict[str, Callable[[Any], Any]] = {
    "no steps": lambda nn: sequence()(nn)(zeros(0, 2, INPUTS)),
    "one dimension": lambda nn: sequence()(nn)(zeros(INPUTS)),
    "four dimensions": lambda nn: sequence("LSTM")(nn)(zeros(1, 2, 2, INPUTS)),
    "features": lambda nn: sequence("RNN")(nn)(zeros(5, 2, INPUTS + 1)),
    "features, packed": lambda nn: sequence("LSTM")(nn)(packed(2, 1, features=INPUTS + 1)),
    "type": lambda nn: sequence("LSTM")(nn)(zeros(5, 2, INPUTS, dtype=DOUBLE)),
    "type, packed LSTM": lambda nn: sequence("LSTM")(nn)(packed(2, 1, dtype=DOUBLE)),
    "type, packed GRU": lambda nn: sequence("GRU")(nn)(packed(2, 1, dtype=DOUBLE)),
    "type of the state": lambda nn: sequence()(nn)(zeros(5, 2, INPUTS), zeros(1, 2, HIDDEN, dtype=DOUBLE)),
    "state's batch": lambda nn: sequence()(nn)(zeros(5, 2, INPUTS), zeros(1, 3, HIDDEN)),
    "state's batch, packed": lambda nn: sequence()(nn)(packed(2, 1), zeros(1, 3, HIDDEN)),
    "state's batch, packed LSTM": lambda nn: sequence("LSTM")(nn)(packed(2, 1), (zeros(1, 3, HIDDEN),) * 2),
    "state's layers": lambda nn: sequence(num_layers=2)(nn)(zeros(5, 2, INPUTS), zeros(1, 2, HIDDEN)),
    "state's dimensions": lambda nn: sequence()(nn)(zeros(5, 2, INPUTS), zeros(2, HIDDEN)),
    "state's dimensions, unbatched": lambda nn: sequence("RNN")(nn)(zeros(5, INPUTS), zeros(1, 1, HIDDEN)),
    "state not projected": lambda nn: sequence("LSTM projected")(nn)(
        zeros(5, 2, INPUTS), (zeros(1, 2, HIDDEN), zeros(1, 2, HIDDEN))
    ),
    "one state for an LSTM": lambda nn: sequence("LSTM")(nn)(zeros(5, 2, INPUTS), zeros(1, 2, HIDDEN)),
    "two states for a GRU": lambda nn: sequence()(nn)(zeros(5, 2, INPUTS), (zeros(1, 2, HIDDEN),) * 2),
    "cell: dimensions": lambda nn: nn.LSTMCell(INPUTS, HIDDEN)(zeros(1, 2, INPUTS)),
    "cell: features": lambda nn: nn.RNNCell(INPUTS, HIDDEN)(zeros(2, INPUTS + 1)),
    "cell: type": lambda nn: nn.GRUCell(INPUTS, HIDDEN)(zeros(2, INPUTS, dtype=DOUBLE)),
    "cell: state's dimensions": lambda nn: nn.GRUCell(INPUTS, HIDDEN)(zeros(2, INPUTS), zeros(1, 2, HIDDEN)),
    "cell: state's batch": lambda nn: nn.GRUCell(INPUTS, HIDDEN)(zeros(2, INPUTS), zeros(3, HIDDEN)),
    "cell: state's width": lambda nn: nn.RNNCell(INPUTS, HIDDEN)(zeros(2, INPUTS), zeros(2, HIDDEN + 1)),
    "cell: one state for an LSTM": lambda nn: nn.LSTMCell(INPUTS, HIDDEN)(zeros(2, INPUTS), zeros(2, HIDDEN)),
    "cell: two states for a GRU": lambda nn: nn.GRUCell(INPUTS, HIDDEN)(zeros(2, INPUTS), (zeros(2, HIDDEN),) * 2),
    "cell: nonlinearity": lambda nn: nn.RNNCell(INPUTS, HIDDEN, nonlinearity="elu")(zeros(2, INPUTS)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_same_exception_as_torch_nn(mistake: str) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever torch.nn raises
        MISTAKES[mistake](torch.nn)
    with pytest.raises(expected.type) as raised:
        MISTAKES[mistake](torchfromscratch.nn)
    assert raised.type is expected.type


def gru(F: Any, *, x: Tensor | None = None, h: Tensor | None = None, count: int = 4, **options: Any) -> Any:
    """A call of two layers as wide as their input with right arguments, but for those given."""
    x, h = zeros(5, 2, HIDDEN) if x is None else x, zeros(2, 2, HIDDEN) if h is None else h
    weights = [zeros(3 * HIDDEN, HIDDEN), zeros(3 * HIDDEN, HIDDEN), zeros(3 * HIDDEN), zeros(3 * HIDDEN)]
    given = {"has_biases": True, "num_layers": 2, "dropout": 0.0, "train": True, "bidirectional": False} | options
    return F.gru(x, h, weights[:count] * 2, *given.values(), False)


WRONG_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "a matrix": lambda F: gru(F, x=zeros(5, HIDDEN)),
    "a state's width": lambda F: gru(F, h=zeros(2, 2, HIDDEN + 1)),
    "a state's batch": lambda F: gru(F, h=zeros(2, 3, HIDDEN)),
    "more states than layers": lambda F: gru(F, h=zeros(3, 2, HIDDEN)),
    "too few weights": lambda F: gru(F, count=3),
    "no biases though promised": lambda F: gru(F, count=2),
    "biases though not promised": lambda F: gru(F, has_biases=False),
    "dropout of more than all": lambda F: gru(F, dropout=1.5),
    "a direction without weights": lambda F: gru(F, bidirectional=True),
    "a missing argument": lambda F: F.gru(zeros(5, 2, INPUTS), zeros(1, 2, HIDDEN), []),
    "a misspelt argument": lambda F: gru(F, three=3),
    "one state": lambda F: F.lstm(zeros(5, 2, 4), (zeros(1, 2, 3),), [], True, 1, 0.0, False, False, False),
    "one state for a cell": lambda F: F.lstm_cell(zeros(2, 4), (zeros(2, 3),), zeros(12, 4), zeros(12, 3)),
    "a vector for a cell": lambda F: F.gru_cell(zeros(4), zeros(3), zeros(9, 4), zeros(9, 3)),
    "a batch of batches for a cell": lambda F: F.gru_cell(zeros(1, 2, 4), zeros(2, 3), zeros(9, 4), zeros(9, 3)),
    "weights of another cell": lambda F: F.gru_cell(zeros(2, 4), zeros(2, 3), zeros(9, 4), zeros(12, 3)),
    "no tensor": lambda F: F.rnn_tanh_cell(None, zeros(2, 3), zeros(3, 4), zeros(3, 3)),
}


@pytest.mark.parametrize("wrong", WRONG_ARGUMENTS)
def test_same_exception_as_torchs_functions(wrong: str) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever torch raises
        WRONG_ARGUMENTS[wrong](torch)
    with pytest.raises(expected.type) as raised:
        WRONG_ARGUMENTS[wrong](torchfromscratch.functional)
    assert raised.type is expected.type


@pytest.mark.parametrize("sizes", [[], [1, 2], [2, 2]], ids=["none", "growing", "more than there are rows"])
def test_batch_sizes_that_are_none(sizes: list[int]) -> None:
    """torch computes something, or crashes."""
    weights = [zeros(3, INPUTS), zeros(3, 3)]
    data, batch_sizes = zeros(sum(sizes[:1]) + 1 if sizes else 0, INPUTS), torch.tensor(sizes, dtype=torch.int64)
    with pytest.raises(RuntimeError):
        torchfromscratch.functional.rnn_tanh(data, batch_sizes, zeros(1, 2, 3), weights, False, 1, 0.0, True, False)


@pytest.mark.parametrize("signature", ["padded", "packed"])
def test_arguments_by_name(signature: str) -> None:
    """Both signatures take keywords, as torch's do."""
    weights = [torch.randn(3, INPUTS), torch.randn(3, 3)]
    common = {"hx": zeros(1, 2, 3), "params": weights, "has_biases": False, "num_layers": 1}
    common |= {"dropout": 0.0, "train": True, "bidirectional": False}
    if signature == "padded":
        given = {"input": torch.randn(5, 2, INPUTS), "batch_first": False}
    else:
        given = {"data": torch.randn(3, INPUTS), "batch_sizes": torch.tensor([2, 1])}
    ours, theirs = [F.rnn_relu(**given, **common) for F in (torchfromscratch.functional, torch)]
    assert_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("p", [0.4, 1.0])
@pytest.mark.parametrize("layout", ["padded", "batch first", "packed"])
def test_dropout_between_layers_draws_as_torch_does(layout: str, p: float, mode: str) -> None:
    modules = twins("GRU", INPUTS, HIDDEN, num_layers=3, dropout=p, batch_first=layout == "batch first")
    x = torch.randn(4, 4, INPUTS, dtype=DOUBLE)
    input = pack_sequence([x[0], x[1, :2], x[2, :1]]) if layout == "packed" else x
    answers = []
    for module in modules:
        torch.manual_seed(0)
        answers.append(pull_back(tensors_of(getattr(module, mode)()(input)), [*module.parameters()]))
    assert_equal(*answers)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_relu_cells_let_through_only_what_they_passed(bad: float) -> None:
    """As relu does: where h' is 0, dL/da is 0, whatever dL/dh' is."""
    cells = [namespace.RNNCell(INPUTS, HIDDEN, nonlinearity="relu") for namespace in NAMESPACES.values()]
    cells[0].load_state_dict(cells[1].state_dict())
    x, grads = torch.randn(6, INPUTS), []
    for cell in cells:
        h = cell(x)
        assert (h == 0).any()
        (grad,) = torch.autograd.grad(h, cell.bias_ih, torch.where(h == 0, bad, 1.0))
        grads.append(grad)
    assert_equal([grads[0]], [grads[1]])


@pytest.mark.parametrize(
    ("dtype", "of_cell_state"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float32)], ids=str
)
def test_a_cell_state_may_be_of_another_type(dtype: torch.dtype, of_cell_state: torch.dtype) -> None:
    """As float32 beside narrow weights, in which what is remembered for long is not rounded at each step."""
    x, h = torch.randn(5, 2, INPUTS, dtype=dtype), torch.randn(1, 2, HIDDEN, dtype=dtype)
    c = torch.randn(1, 2, HIDDEN, dtype=of_cell_state)
    ours, theirs = twins("LSTM", INPUTS, HIDDEN, dtype=dtype)
    cells = [nn.LSTMCell(INPUTS, HIDDEN).to(dtype) for nn in NAMESPACES.values()]
    for sequence, cell in zip((ours, theirs), cells, strict=True):
        cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in theirs.state_dict().items()})
        sequence.requires_grad_(False)
    tolerance = {"rtol": 0, "atol": 8 * torch.finfo(dtype).eps}  # of numbers below 1, rounded at each of five steps
    for mine, other in ((ours(x, (h, c)), theirs(x, (h, c))), [cell(x[0], (h[0], c[0])) for cell in cells]):
        torch.testing.assert_close(mine, other, **tolerance)


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("how", ["float32", "bfloat16", "float16", "autocast", "autocast packed"])
def test_mean_errors_are_torchs_at_most(kind: str, how: str) -> None:
    """Errors of values and gradients, each relative and the mean of 20 draws, are at most twice torch's."""
    autocast = how.startswith("autocast")
    dtype = torch.float32 if autocast else getattr(torch, how)
    ours, theirs = [], []
    for seed in range(20):
        torch.manual_seed(seed)
        modules = twins(kind, 8, 8, dtype=dtype)
        exact = SEQUENCES[kind](torch.nn, 8, 8).double()
        exact.load_state_dict(modules[1].state_dict())
        x = torch.randn(6, 4, 8, dtype=dtype)
        answers = []
        for module in (*modules, exact):
            leaf = x.to(next(module.parameters()).dtype).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast and module is not exact):
                lengths = (6, 4, 4, 1)
                sequences = [x.narrow(0, 0, length) for x, length in zip(leaf.unbind(1), lengths, strict=True)]
                input = pack_sequence(sequences) if "packed" in how else leaf
                answer = tensors_of(module(input))
            answers.append(pull_back(answer, [leaf, *module.parameters()]))
        assert [y.dtype for y in answers[0]] == [y.dtype for y in answers[1]]
        for errors, mine in zip((ours, theirs), answers[:2], strict=True):
            errors.append([largest_error(y, true) / scale(true) for y, true in zip(mine, answers[2], strict=True)])
    ratio = torch.tensor(ours).mean(0) / torch.tensor(theirs).mean(0)
    assert ratio.max() <= 2, ratio


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_only_the_states_and_the_inputs_share_are_kept(kind: str) -> None:
    """For the backward pass, a layer keeps u and its states, however many gates it has."""
    module = sequence(kind)(torchfromscratch.nn)
    steps, batch, kept = 50, 10, 0
    x = torch.randn(steps, batch, INPUTS)

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() if tensor.numel() >= steps * batch else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        module(x)
    gates, states = {"RNN": (1, 1), "LSTM": (4, 2), "GRU": (3, 1)}[kind]
    assert kept <= steps * batch * (INPUTS + (gates + states) * HIDDEN)


def test_module_is_traced_whole_where_dynamo_is_told_to() -> None:
    """torch.compile refuses subclasses of torch.nn.RNNBase unless allow_rnn is set."""
    torch._dynamo.reset()
    module = sequence("LSTM")(torchfromscratch.nn)
    x = torch.randn(3, 2, INPUTS, requires_grad=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    sources = [x, *module.parameters()]
    assert_equal(pull_back(tensors_of(compiled), sources), pull_back(tensors_of(module(x)), sources))


@pytest.mark.parametrize("kind", SEQUENCES)
def test_export(kind: str) -> None:
    module = sequence(kind, num_layers=2)(torchfromscratch.nn)
    x = torch.randn(4, 2, INPUTS)
    export = functools.partial(torch.export.export, args=(x,), strict=False)
    with lacks.left_out_if_torch_refuses_too(lambda: export(sequence(kind, num_layers=2)(torch.nn))):
        program = export(module)
    assert_equal(tensors_of(program.module()(x)), tensors_of(module(x)))


def test_one_tensor_as_both_states_is_traced() -> None:
    """torch.compile takes no tensor twice for one Function; (h, h) is what many pass."""
    cell, x, h = torchfromscratch.nn.LSTMCell(INPUTS, HIDDEN), torch.randn(2, INPUTS), torch.zeros(2, HIDDEN)
    compiled = torch.compile(lambda x, h: cell(x, (h, h)), fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x, h), cell(x, (h, h)))


COMPLEX = {
    **{kind: SEQUENCES[kind] for kind in SEQUENCES if kind != "RNN relu"},
    "LSTM deep both ways": lambda nn, *args: nn.LSTM(*args, num_layers=2, bidirectional=True),
    "RNNCell": lambda nn, *args: nn.RNNCell(*args),
    "LSTMCell": lambda nn, *args: nn.LSTMCell(*args),
    "GRUCell": lambda nn, *args: nn.GRUCell(*args),
}


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize("kind", COMPLEX)
def test_complex_numbers_have_torchs_gradients(kind: str) -> None:
    """First and second: the gradient of a holomorphic step is conjugated."""

    def answer(nn: Any) -> list[Tensor]:
        torch.manual_seed(0)
        module = COMPLEX[kind](nn, INPUTS, HIDDEN).to(torch.complex128)
        shape = (2, INPUTS) if "Cell" in kind else (3, 2, INPUTS)
        x = torch.randn(shape, dtype=torch.complex128, requires_grad=True)
        outputs, sources = pytree.tree_leaves(module(x)), [x, *module.parameters()]
        loss = sum([(output * (1 + 2j)).real.square().sum() for output in outputs])
        gradients = torch.autograd.grad(loss, sources, create_graph=True)
        second = torch.autograd.grad(sum([g.abs().square().sum() for g in gradients]), sources)
        return [*outputs, *gradients, *second]

    for ours, theirs in zip(answer(torchfromscratch.nn), answer(torch.nn), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("grad_enabled", [True, False])
@pytest.mark.parametrize("cell", ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"])
def test_torch_func_finds_cells_by_hand_whatever_the_grad_mode(cell: str, grad_enabled: bool) -> None:
    """torch.func differentiates under torch.no_grad() too."""
    gates = {"gru_cell": 3, "lstm_cell": 4}.get(cell, 1)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    weights = [torch.randn(gates * 4, 3), torch.randn(gates * 4, 4), torch.randn(gates * 4), torch.randn(gates * 4)]

    def loss(h: Tensor) -> Tensor:
        state = getattr(torchfromscratch.functional, cell)(x, (h, h) if cell == "lstm_cell" else h, *weights)
        return (state[1] if cell == "lstm_cell" else state).square().sum()

    expected = torch.func.hessian(loss)(h)
    with torch.set_grad_enabled(grad_enabled), torchfromscratch.audit():
        assert torch.equal(torch.func.hessian(loss)(h), expected)
