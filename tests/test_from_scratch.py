"""Inside from_scratch(), what torch calls a layer is ours: same numbers, and nothing built in."""

import contextlib
import functools
import threading

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from tests import lacks
from tests.cases import all_cases, all_module_cases
from torchfromscratch import audit, from_scratch
from torchfromscratch import functional as ours
from torchfromscratch.functional.override import CAN_TRACE_MODES

X = torch.linspace(-2, 2, 2 * 4 * 6 * 6, dtype=torch.float64).reshape(2, 4, 6, 6)
WEIGHT = torch.linspace(-1, 1, 4, dtype=torch.float64)


def tensors_of(output):
    return [output] if isinstance(output, torch.Tensor) else [t for part in output for t in tensors_of(part)]


def step(call, *inputs):
    """Outputs and gradients, the same random numbers every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = tensors_of(call(*inputs))
        loss = sum(output.square().sum() for output in outputs if output.requires_grad)
        return outputs, torch.autograd.grad(loss, inputs, allow_unused=True) if inputs else ()


def by_hand(call, *inputs):
    with from_scratch(), audit():
        return step(call, *inputs)


def skip_if_left_out(case):
    if "audit" in case.leave_out:
        pytest.skip(case.leave_out["audit"])
    if case.name == "l1_loss weight":
        pytest.skip("torch hands l1_loss over to a mode without its weight")


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_torchs_functions_are_ours(case):
    skip_if_left_out(case)
    output = by_hand(lambda *inputs: case.call(F, *inputs), *case.inputs())
    expected = step(lambda *inputs: case.call(ours, *inputs), *case.inputs())
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", all_module_cases(), ids=lambda case: case.name)
def test_torchs_modules_are_covered(case):
    skip_if_left_out(case)
    with torch.random.fork_rng():
        module = case.build(torch.nn).double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in case.shapes]
    call = functools.partial(case.call or (lambda module, *inputs: module(*inputs)), module)
    torch.testing.assert_close(by_hand(call, *inputs), step(call, *inputs))


# How torch itself spells layers beside torch.nn.functional.
SPELLINGS = {
    "torch.relu": torch.relu,
    "torch.relu_": lambda x: torch.relu_(x * 1),
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: (x * 1).relu_(),
    "torch.sigmoid": torch.sigmoid,
    "Tensor.sigmoid": lambda x: x.sigmoid(),
    "Tensor.sigmoid_": lambda x: (x * 1).sigmoid_(),
    "torch.conv2d": lambda x: torch.conv2d(x, x[:1, :, :3, :3], padding="same"),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2, ceil_mode=True),
    "F.max_pool2d_with_indices": lambda x: F.max_pool2d_with_indices(x, 2)[0],
    "torch.adaptive_max_pool1d": lambda x: torch.adaptive_max_pool1d(x[0], 2)[0],
    "torch.adaptive_avg_pool1d": lambda x: torch.adaptive_avg_pool1d(x[0], 2),
    "torch.softmax": lambda x: torch.softmax(x, 1, torch.float64),
    "torch.softmax keywords": lambda x: torch.softmax(x, dim=1, dtype=torch.float64),
    "Tensor.softmax": lambda x: x.softmax(-1),
    "Tensor.log_softmax": lambda x: x.log_softmax(-1),
    "torch.log_softmax": lambda x: torch.log_softmax(x, 1),
    "torch.special.softmax": lambda x: torch.special.softmax(x, 1),
    "torch.batch_norm": lambda x: torch.batch_norm(x, WEIGHT, None, None, None, True, 0.1, 1e-5, False),
    "torch.instance_norm": lambda x: torch.instance_norm(x, WEIGHT, None, None, None, True, 0.1, 1e-5, True),
    "torch.layer_norm": lambda x: torch.layer_norm(x, (6,), eps=1e-3, cudnn_enable=False),
    "torch.group_norm": lambda x: torch.group_norm(x, 2, WEIGHT),
    "torch.rms_norm": lambda x: torch.rms_norm(x, (6,)),
    "torch.prelu": lambda x: torch.prelu(x, WEIGHT),
    "Tensor.prelu": lambda x: x.prelu(WEIGHT),
    "torch.celu": lambda x: torch.celu(x, 0.5),
    "torch.selu": torch.selu,
    "F.elu_": lambda x: F.elu_(x * 1, 0.5),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x * 1),
    "F.hardtanh_": lambda x: F.hardtanh_(x * 1),
    "torch.dropout": lambda x: torch.dropout(x, 0.5, False),
    "torch.embedding": lambda x: torch.embedding(x[0, 0], torch.tensor([1, 2]), 1),
    "torch.kl_div": lambda x: torch.kl_div(x, X.softmax(1), 2),
    "torch.binary_cross_entropy_with_logits": lambda x: torch.binary_cross_entropy_with_logits(x, X.sigmoid()),
    "torch.cosine_embedding_loss": lambda x: torch.cosine_embedding_loss(x[0, 0], x[1, 0], WEIGHT.new_ones(6), 0.1, 2),
    "torch.hinge_embedding_loss": lambda x: torch.hinge_embedding_loss(x, X.sign(), 0.5, 2),
    "torch.margin_ranking_loss": lambda x: torch.margin_ranking_loss(x, x.flip(0), X.sign(), 0.5, 0),
    "torch.poisson_nll_loss": lambda x: torch.poisson_nll_loss(x, X.square(), True, False, 1e-8, 2),
    "torch.triplet_margin_loss": lambda x: torch.triplet_margin_loss(x, x.flip(0), x.flip(1), 9.0, 1.0, 1e-6, True, 2),
    "torch.cosine_similarity": lambda x: torch.cosine_similarity(x, x.flip(0), 2),
    "torch.pairwise_distance": lambda x: torch.pairwise_distance(x, x.flip(0), 3.0),
    "torch.pdist": lambda x: torch.pdist(x[0, 0]),
    "torch.bilinear": lambda x: torch.bilinear(x, x.flip(0), x[0, :2], None),
    "torch.pixel_shuffle": lambda x: torch.pixel_shuffle(x, 2),
    "torch.channel_shuffle": lambda x: torch.channel_shuffle(x, 2),
    "torch.lstm": lambda x: torch.nn.LSTM(6, 3, bidirectional=True).double()(x[0])[0],
    "torch.gru": lambda x: torch.nn.GRU(6, 3, num_layers=2).double()(x[0])[0],
    "torch.rnn_tanh": lambda x: torch.nn.RNN(6, 3).double()(x[0])[0],
    "torch.lstm_cell": lambda x: torch.nn.LSTMCell(6, 3).double()(x[0, 0])[0],
    "torch.gru_cell": lambda x: torch.nn.GRUCell(6, 3).double()(x[0, 0]),
    "torch.rnn_relu_cell": lambda x: torch.nn.RNNCell(6, 3, nonlinearity="relu").double()(x[0, 0]),
    "TransformerEncoderLayer": lambda x: torch.nn.TransformerEncoderLayer(6, 2, 8, dropout=0).double()(x[0]),
    "TransformerDecoderLayer": lambda x: torch.nn.TransformerDecoderLayer(6, 2, 8, dropout=0).double()(x[0], x[1]),
}


@pytest.mark.parametrize("call", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_torch_is_covered(call):
    x = X.clone().requires_grad_()
    torch.testing.assert_close(by_hand(call, x), step(call, x))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.unfold(2, 3, 1),
        lambda x: torch.flatten(x, 1),
        lambda x: torch.cdist(x, x),
        lambda x: x.exp(),
        lambda x: F.normalize(x),
    ],
)
def test_everything_else_is_left_alone(call):
    with from_scratch():
        output = call(X)
    assert torch.equal(output, call(X))
    assert output.stride() == call(X).stride()


RAGGED = [torch.ones(2, 4), torch.ones(3, 4)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.max_pool2d(torch.quantize_per_tensor(X.float(), 0.1, 0, torch.qint8), 2).dequantize(),
        lambda: torch.relu(X[0, 0].to_sparse()).to_dense(),
        lambda: F.linear(X, X[0, 0].to_sparse_csr()),
        lambda: F.relu(X.float().to_mkldnn()).to_dense(),
        lambda: F.softmax(torch.nested.nested_tensor(RAGGED), -1).to_padded_tensor(0),
        lambda: F.linear(torch.nested.nested_tensor(RAGGED, layout=torch.jagged), RAGGED[0]).to_padded_tensor(0),
        lambda: torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2)))(X),
    ],
    ids=["quantized", "sparse", "sparse weight", "mkldnn", "nested", "jagged", "fx"],
)
def test_layers_of_what_is_no_dense_tensor_are_left_alone(call):
    with from_scratch():
        output = call()
    assert torch.equal(output, call())


@pytest.mark.parametrize("call", [torch.sigmoid, torch.tanh, lambda x, out: torch.softmax(x, 1, out=out)])
def test_an_out_is_written(call):
    out, expected = torch.empty_like(X), torch.empty_like(X)
    with from_scratch(), audit():
        assert call(X, out=out) is out
    torch.testing.assert_close(out, call(X, out=expected))


def test_it_ends_with_its_block():
    with from_scratch():
        pass
    with audit(record=True) as report:
        F.relu(X)
    assert report


def test_it_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), from_scratch():
        _ = 1 / 0
    with audit(record=True) as report:
        F.relu(X)
    assert report


def test_it_decorates():
    @from_scratch()
    def step(input):
        return F.relu(input)

    for _ in range(2):
        with audit():
            step(X)
    with audit(record=True) as report:
        F.relu(X)
    assert report


def test_it_nests():
    with from_scratch():
        with from_scratch(), audit():
            F.relu(X)
        with audit():
            F.relu(X)


@pytest.mark.parametrize("order", ["audit first", "audit last"])
def test_audit_sees_what_is_left_inside(order):
    with from_scratch(), audit(record=True) as last, from_scratch():
        F.relu(X)
        torch.ops.aten.relu(X)
    with audit(record=True) as first, from_scratch():
        F.relu(X)
        torch.ops.aten.relu(X)
    assert (first if order == "audit first" else last).kernels == {"aten::relu": 1}


def test_it_holds_in_the_thread_that_enters_it_alone():
    reports = {}

    def work(name, enter):
        with audit(record=True) as reports[name]:
            if enter:
                with from_scratch():
                    F.relu(X)
            else:
                F.relu(X)

    with from_scratch():
        threads = [threading.Thread(target=work, args=(enter, enter)) for enter in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not reports[True]
    assert reports[False]


@pytest.mark.parametrize(
    "call",
    [lambda x: F.lp_pool2d(x, 2, 2), lambda x: F.local_response_norm(x, 2), lambda x: F.gumbel_softmax(x, dim=1)],
    ids=["lp_pool2d", "local_response_norm", "gumbel_softmax"],
)
def test_what_a_python_function_of_torch_calls_is_covered(call):
    x = X.clone().requires_grad_()
    torch.testing.assert_close(by_hand(call, x), step(call, x))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_is_repeated_by_hand(use_reentrant):
    layer = torch.nn.Conv2d(4, 4, 3).double()

    def call(x):
        return checkpoint(lambda x: F.relu(layer(x)).softmax(1), x, use_reentrant=use_reentrant)

    def run():
        x = X.clone().requires_grad_()
        call(x).square().sum().backward()
        return x.grad

    expected = run()
    with from_scratch(), audit():
        torch.testing.assert_close(run(), expected)


def test_initialisation_goes_on_as_before():
    with from_scratch():
        torch.nn.init.kaiming_uniform_(torch.empty(3, 3))
        torch.nn.init.trunc_normal_(torch.empty(3, 3))


def test_a_backward_outside_is_still_by_hand():
    x = X.clone().requires_grad_()
    with from_scratch():
        y = torch.relu(x).sigmoid().sum()
    with audit():
        y.backward()


def test_our_own_layers_inside_are_themselves():
    with from_scratch(), audit():
        inside = ours.sigmoid(X)
    assert torch.equal(inside, ours.sigmoid(X))


def test_it_compiles_in_one_graph():
    @from_scratch()
    def step(input):
        return F.relu(input) * torch.sigmoid(input)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with lacks.left_out_for(lacks.context_managers_in_traced_code):
        torch.testing.assert_close(compiled(X), step(X))


@pytest.mark.skipif(not CAN_TRACE_MODES, reason="before torch 2.11, what is traced cannot ask whether a mode is on")
@pytest.mark.parametrize("mode", ["around", "inside"])
def test_kernels_of_torchs_fast_paths_are_not_compiled(mode):
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double().eval()
    x, padding = X[0, :2, :3, :4], torch.tensor([[False, False, False], [False, True, True]])
    arguments = (x, None, padding)
    called = set()

    def backend(graph, _):
        called.update(getattr(node.target, "__name__", "") for node in graph.graph.nodes)
        return graph.forward

    step = from_scratch()(lambda *given: layer(*given)) if mode == "inside" else layer
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    with torch.no_grad():
        expected = layer(*arguments)
        with from_scratch() if mode == "around" else contextlib.nullcontext():
            torch.testing.assert_close(compiled(*arguments), expected)
    assert torch.backends.mha.get_fastpath_enabled()
    assert "addmm" in called
    assert called.isdisjoint({"_transformer_encoder_layer_fwd", "_native_multi_head_attention", "linear"})
