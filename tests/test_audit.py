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
SEQUENCE = X.view(-1, 6, 4)
LABELS = torch.tensor([1, 3])

# One or more built-in layers of each family. Those marked have no kernel of their own in a backward: what
# autograd makes of them is arithmetic.
BUILTINS = {
    "convolution": [
        lambda x: F.conv1d(x[0], torch.ones(2, 4, 3).to(x)),
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
    "unfold": [lambda x: F.unfold(x, 3), lambda x: F.fold(x.reshape(2, 36, 4 * 2 * 1)[..., :4], (4, 4), 3)],
    "embedding": [lambda x: F.embedding(LABELS, x[0, 0]), lambda x: F.embedding_bag(LABELS, x[0, 0], LABELS * 0)],
}
# Their composites turn into arithmetic before autograd records them, so that only their call can be seen.
COMPOSITES = {
    "linear": [lambda x: F.linear(x, torch.ones(3, 6).to(x)), lambda x: F.bilinear(x, x, torch.ones(2, 6, 6).to(x))],
    "dropout": [F.dropout, F.dropout2d, F.alpha_dropout, lambda x: F.dropout(x, training=False)],
    "recurrent": [
        lambda x: torch.nn.RNN(4, 3).double()(x.view(-1, 6, 4)),
        lambda x: torch.nn.LSTM(4, 3).double()(x.view(-1, 6, 4)),
        lambda x: torch.nn.GRUCell(4, 3).double()(x.view(-1, 4)),
    ],
    "attention": [lambda x: F.scaled_dot_product_attention(x, x, x)],
    "normalization": [lambda x: F.rms_norm(x, (6,))],
    "loss": [lambda x: F.l1_loss(x, X + 1), lambda x: F.kl_div(x, X), lambda x: F.triplet_margin_loss(x, x, X)],
    "activation": [F.softsign],
}


def layers(*tables):
    return [
        pytest.param(family, layer, id=f"{family}-{number}")
        for table in tables
        for family, row in table.items()
        for number, layer in enumerate(row)
    ]


def grad(output, input):
    """d output/d input of all elements' sum, itself differentiable; differently weighted to be no constant."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view_as(output)
    return torch.autograd.grad((output * weights * output).sum(), input, create_graph=True)[0]


def call_of(audited):
    with pytest.raises(BuiltinLayerError) as caught, audit():
        audited()
    return caught.value.call


@pytest.mark.parametrize(("family", "layer"), layers(BUILTINS, COMPOSITES))
def test_every_builtin_is_caught_in_its_forward(family, layer):
    call = call_of(lambda: layer(X))
    assert call.node is None
    assert __file__ in str(call.where)


@pytest.mark.parametrize(("family", "layer"), layers(BUILTINS))
def test_every_builtin_is_caught_in_its_backward(family, layer):
    x = X.clone().requires_grad_()
    output = layer(x)
    assert call_of(lambda: grad(output, x)).node is not None


def test_all_families_are_tried():
    assert {*BUILTINS, *COMPOSITES} == set(FAMILIES)
