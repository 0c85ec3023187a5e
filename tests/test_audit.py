"""audit() finds every built-in layer kernel, in a forward and in backwards of any order, and nothing else."""

import re
import threading

import pytest
import torch
import torch.nn.functional as F

from torchfromscratch import BuiltinLayerError, audit
from torchfromscratch import functional as ours
from torchfromscratch.audit import FAMILIES, builtin_family

X = torch.linspace(-2, 2, 2 * 4 * 6 * 6, dtype=torch.float64).reshape(2, 4, 6, 6)
LABELS = torch.tensor([1, 3])

# Run a kernel of their own, and another in their backward.
BUILTINS = {
    "distance": [
        lambda x: F.pdist(x.flatten(1).double()),
    ],
    "shuffle": [
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: F.channel_shuffle(x, 2),
    ],
    "convolution": [
        lambda x: F.conv1d(x[0], torch.ones(2, 6, 3).to(x)),
        lambda x: F.conv2d(x, torch.ones(2, 4, 3, 3).to(x)),
        lambda x: F.conv3d(x, torch.ones(2, 2, 1, 3, 3).to(x)),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3).to(x)),
    ],
    "pooling": [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 4),
        lambda x: F.adaptive_max_pool2d(x, 4),
    ],
    "activation": [
        torch.relu,
        torch.Tensor.relu,
        F.relu6,
        F.leaky_relu,
        F.elu,
        F.selu,
        F.celu,
        F.gelu,
        F.silu,
        F.mish,
        F.softplus,
        F.hardtanh,
        F.hardswish,
        F.hardsigmoid,
        F.logsigmoid,
        F.softshrink,
        F.hardshrink,
        F.tanhshrink,
        F.rrelu,
        lambda x: F.glu(x, 1),
        lambda x: F.prelu(x, torch.ones(4).to(x)),
        lambda x: F.threshold(x, 0.1, 0.2),
    ],
    "normalization": [
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.layer_norm(x, (6,)),
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
    ],
    "softmax": [lambda x: F.softmax(x, 1), lambda x: x.log_softmax(1), lambda x: torch.special.softmax(x, 1)],
    "loss": [
        lambda x: F.mse_loss(x, X + 1),
        lambda x: F.smooth_l1_loss(x, X + 1),
        lambda x: F.huber_loss(x, X + 3),
        lambda x: F.cross_entropy(x[:, :, 0, 0], LABELS),
        lambda x: F.nll_loss(x[:, :, 0, 0], LABELS),
        lambda x: F.binary_cross_entropy(x.abs() / 9 + 0.1, X * 0 + 0.5),
    ],
    "padding": [lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), lambda x: F.pad(x, (1, 1, 1, 1), "replicate")],
    "resizing": [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, 3, mode="nearest-exact"),
        lambda x: F.interpolate(x, 3, mode="bilinear", antialias=True),
        lambda x: F.interpolate(x[0], 3, mode="linear"),
        lambda x: torch.nn.Upsample(3, mode="bicubic")(x),
    ],
    "sampling": [
        lambda x: F.grid_sample(x, x[:, :2].movedim(1, -1), align_corners=False),
        lambda x: F.grid_sample(x[None], x[None, :, :3].movedim(2, -1), align_corners=False),
    ],
    "unfold": [lambda x: F.unfold(x, 3), lambda x: F.fold(x.reshape(2, 36, 4), (4, 4), 3)],
    "embedding": [
        lambda x: F.embedding(LABELS, x[0, 0]),
        lambda x: F.embedding_bag(LABELS, x[0, 0], LABELS * 0),
    ],
}
# Turn into arithmetic before autograd records them, so that only the call shows that there was a layer.
COMPOSITES = {
    "distance": [
        lambda x: F.cosine_similarity(x, x),
        lambda x: F.pairwise_distance(x, 2 * x),
    ],
    "linear": [
        lambda x: F.linear(x, torch.ones(3, 6).to(x)),
        lambda x: F.bilinear(x, x, torch.ones(2, 6, 6).to(x)),
    ],
    "sampling": [lambda x: F.affine_grid(x[:, 0, :2, :3], (len(x), 1, 2, 2), align_corners=False)],
    "dropout": [F.dropout, F.dropout2d, F.alpha_dropout, lambda x: F.dropout(x, training=False)],
    "recurrent": [
        lambda x: torch.nn.RNN(4, 3).double()(x.view(-1, 6, 4)),
        lambda x: torch.nn.LSTM(4, 3).double()(x.view(-1, 6, 4)),
        lambda x: torch.nn.GRUCell(4, 3).double()(x.view(-1, 4)),
    ],
    "attention": [lambda x: F.scaled_dot_product_attention(x, x, x)],
    "normalization": [lambda x: F.rms_norm(x, (6,))],
    "loss": [
        lambda x: F.l1_loss(x, X + 1),
        lambda x: F.kl_div(x, X, reduction="sum"),
        lambda x: F.triplet_margin_loss(x, x, X),
    ],
    "activation": [F.softsign],
}


def layers(*tables):
    return [
        pytest.param(family, layer, id=f"{family}-{number}")
        for table in tables
        for family, row in table.items()
        for number, layer in enumerate(row)
    ]


def call_of(audited):
    with pytest.raises(BuiltinLayerError) as caught, audit():
        audited()
    return caught.value.call


@pytest.mark.parametrize(("family", "layer"), layers(BUILTINS, COMPOSITES))
def test_a_builtin_is_caught_in_its_forward(family, layer):
    call = call_of(lambda: layer(X))
    assert call.node is None
    assert __file__ in call.where
    with audit(record=True) as report:
        layer(X)
    assert family in {call.family for call in report.calls}


@pytest.mark.parametrize(("family", "layer"), layers(BUILTINS))
def test_a_builtin_is_caught_in_its_backward(family, layer):
    x = X.clone().requires_grad_()
    loss = layer(x).square().sum()
    call = call_of(loss.backward)
    assert call.node is not None
    assert call.node in call.where
    assert __file__ in call.where


@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        (lambda x: F.conv2d(x, torch.ones(2, 4, 3, 3).to(x)), "aten::convolution"),
        (F.elu, "aten::elu_backward"),
        (torch.sigmoid, "aten::sigmoid_backward"),
        (torch.tanh, "aten::tanh_backward"),
        (lambda x: F.max_pool2d(x, 2), "aten::max_pool2d_with_indices_backward"),
    ],
    ids=["conv2d", "elu", "sigmoid", "tanh", "max_pool2d"],
)
def test_a_builtin_is_caught_in_a_backward_of_the_second_order(layer, kernel):
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with audit(record=True) as report:
        grad.square().sum().backward()
    assert kernel in report.kernels


class Cheat(torch.autograd.Function):
    """Looks hand-written, and calls a built-in layer in its backward."""

    @staticmethod
    def forward(input, layer):
        return input * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.layer = inputs

    @staticmethod
    def backward(ctx, grad_output):
        return ctx.layer(grad_output), None  # the cheat


@pytest.mark.parametrize("start", ["Tensor.backward", "torch.autograd.backward", "torch.autograd.grad"])
@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        (lambda g: F.conv2d(g, torch.ones(4, 4, 1, 1).to(g)), "aten::convolution"),
        (lambda g: F.linear(g, torch.eye(6).to(g)), "aten::linear"),
        (F.dropout, "aten::dropout"),
    ],
    ids=["conv2d", "linear", "dropout"],
)
def test_a_builtin_inside_a_function_is_named_by_its_line_and_node(layer, kernel, start):
    x = X.clone().requires_grad_()
    y = Cheat.apply(x, layer).sum()
    backward = {
        "Tensor.backward": y.backward,
        "torch.autograd.backward": lambda: torch.autograd.backward(y),
        "torch.autograd.grad": lambda: torch.autograd.grad(y, x),
    }[start]
    call = call_of(backward)
    assert call.node == "CheatBackward"
    assert call.kernel == kernel
    assert __file__ in call.where
    assert "<lambda>" in call.where or "return ctx.layer(grad_output)" in call.where


def test_the_message_names_kernel_file_line_and_module():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3).double(), torch.nn.ReLU())
    with pytest.raises(BuiltinLayerError) as caught, audit():
        model(X)  # this line
    message = str(caught.value)
    assert re.search(r"aten::convolution is a built-in convolution kernel", message)
    assert re.search(
        rf"{re.escape(__file__)}:\d+ in {test_the_message_names_kernel_file_line_and_module.__name__}",
        message,
    )
    assert "model(X)  # this line (in Conv2d)" in message


@pytest.mark.parametrize(
    "allowed",
    [
        lambda x: x.view(2, -1) @ x.view(2, -1).mT,
        lambda x: torch.sigmoid(x) + torch.tanh(x) + torch.erf(x) + x.exp().log1p(),
        lambda x: x.unfold(2, 3, 1).amax(-1).clamp(0, 1),
        lambda x: F.pad(x, (1, 1)),
        lambda x: torch.where(x > 0, x, 0).sum().backward(),
        lambda x: x.gather(1, x.argsort(1)).bernoulli(0.5),
        lambda x: torch.logsumexp(x, 1).sum().backward(),
    ],
)
def test_arithmetic_passes(allowed):
    with audit():
        allowed(X.clone().requires_grad_())


def test_ours_pass_in_forward_and_backward_and_its_backward():
    x = X.clone().requires_grad_()
    with audit():
        (grad,) = torch.autograd.grad(ours.relu(x).square().sum(), x, create_graph=True)
        (ours.sigmoid(grad) * grad).sum().backward()


def test_recording_counts_and_tells_from_where():
    x = X.clone().requires_grad_()
    with audit(record=True) as report:
        for _ in range(3):
            y = torch.relu(x)
        F.linear(y, X[0, 0]).sum().backward()
    assert report
    assert report.kernels == {"aten::relu": 3, "aten::linear": 1, "aten::threshold_backward": 1}
    assert "3 × aten::relu" in str(report)
    assert "y = torch.relu(x)" in str(report)
    assert "run by ReluBackward0" in str(report)


def test_recording_nothing_says_so():
    with audit(record=True) as report:
        X.sum()
    assert not report
    assert str(report) == "no built-in layer ran"


def test_a_layer_is_counted_once_however_many_names_it_goes_through():
    with audit(record=True) as report:
        F.conv2d(X, X[:, :, :3, :3])
    assert report.kernels == {"aten::convolution": 1}


def test_audits_nest_and_end():
    with audit(record=True) as outer:
        with pytest.raises(BuiltinLayerError), audit():
            torch.relu(X)
        with audit(record=True) as inner:
            torch.relu(X)
        torch.relu(X)
    torch.relu(X)
    assert inner.kernels == {"aten::relu": 1}
    assert outer.kernels == {"aten::relu": 2}


def test_a_default_device_may_be_set_inside_and_outside():
    torch.set_default_device("cpu")
    try:
        with audit():
            torch.set_default_device("meta")
            assert torch.ones(1).is_meta
        with pytest.raises(BuiltinLayerError), audit():
            torch.relu(X)
    finally:
        torch.set_default_device(None)
    assert not torch.ones(1).is_meta


def test_it_decorates():
    @audit()
    def step():
        return torch.relu(X)

    for _ in range(2):
        with pytest.raises(BuiltinLayerError):
            step()


def test_other_threads_are_not_watched():
    answers = []
    thread = threading.Thread(target=lambda: answers.append(torch.relu(X)))
    with audit():
        thread.start()
        thread.join()
    assert answers


def test_an_operator_of_another_library_is_not_built_in():
    with torch.library._scoped_library("torchfromscratch_test", "DEF") as library:
        library.define("relu(Tensor x) -> Tensor")
        library.impl("relu", lambda x: x.clamp(min=0), "CompositeExplicitAutograd")
        with audit():
            torch.ops.torchfromscratch_test.relu(X)


def test_the_kernels_of_vendors_are_built_in():
    with pytest.raises(BuiltinLayerError, match="mkldnn::_linear_pointwise"), audit():
        torch.ops.mkldnn._linear_pointwise(X.float()[0, 0], torch.ones(3, 6), None, "none", [], "")


def test_all_families_are_tried():
    assert {*BUILTINS, *COMPOSITES} == set(FAMILIES)


# Operators that look like layers, and are none: derivatives of views, indexing and mathematics, sampling of
# pictures at any place, optimizers, quantization and housekeeping.
NO_LAYERS = r"""
    (select|slice|diagonal|index_select|masked_scatter|masked_select|gather|gather_sparse|unfold|trace
    |to_dense|to_mkldnn|nested_select|nested_sum|sparse_sum|sparse_mm_reduce_impl|pack_padded_sequence|segment_reduce
    |matmul|matrix_exp|cumprod|cummaxmin|logit|cdist|value_selecting_reduction)_backward
    |weight_norm_(differentiable|interface)_backward
    |one_hot |pad |unfold |flatten |unflatten |sigmoid |tanh |grouped_mm |scaled_(grouped_)?mm
    |fused_(adagrad|adam|adamw|sgd) |fake_quantize_\w+ |fused_moving_avg_obs_\w+
    |mkldnn_(reshape|transpose) |cudnn_is_acceptable |nnpack_available |native_norm |fbgemm_pack_\w+
    |backward
"""


def test_every_operator_of_torch_that_looks_like_a_layer_is_classified():
    """Fails when a new version of torch brings a layer that audit() does not know."""
    operators = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    names = {name.removeprefix("aten::").strip("_") for name in operators if name.startswith("aten::")}
    modules = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in vars(torch.nn)}
    layers = {name for name, value in vars(F).items() if callable(value)} | modules
    vendors = r"(^|_)(cudnn|mkldnn|miopen|thnn|native|fused|mps|nnpack|fbgemm)_|_backward"
    alike = {name for name in names if name in layers or re.search(vendors, name)}
    unknown = {name for name in alike if not builtin_family(name) and not re.fullmatch(NO_LAYERS, name, re.VERBOSE)}
    assert not unknown
    assert len(alike) > 200
