"""Activations where the cases say nothing: kinks, NaN and infinities, errors, types, memory, random slopes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

import torchfromscratch.functional as F
from tests import lacks
from torchfromscratch import nn
from torchfromscratch.kernels.blocking import ELEMENTWISE_BLOCK
from torchfromscratch.kernels.gate import BITS, gate
from torchfromscratch.kernels.precision import round_to

KINKS = [-math.inf, -100, -6, -3, -1, -0.5, -0.0, 0.0, 0.5, 1, 3, 6, 20, 100, math.inf, math.nan]
ACTIVATIONS = [
    ("relu", ()),
    ("leaky_relu", ()),
    ("relu6", ()),
    ("hardtanh", ()),
    ("threshold", (0.5, 2.0)),
    ("hardshrink", ()),
    ("softshrink", ()),
    ("hardsigmoid", ()),
    ("hardswish", ()),
    ("sigmoid", ()),
    ("tanh", ()),
    ("logsigmoid", ()),
    ("silu", ()),
    ("mish", ()),
    ("softplus", ()),
    ("tanhshrink", ()),
    ("softsign", ()),
    ("elu", ()),
    ("selu", ()),
    ("celu", (0.5,)),
]
INPLACE = ["relu", "leaky_relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "silu", "mish", "elu", "selu", "celu"]


def value_and_gradient(
    function: Callable[..., torch.Tensor], input: torch.Tensor, grad_output: float, *args: float
) -> tuple[torch.Tensor, torch.Tensor]:
    x = input.clone().requires_grad_()
    y = function(x, *args)
    return y.detach(), torch.autograd.grad(y, x, torch.full_like(y, grad_output))[0]


def type_of_torchs_error(call: Callable) -> type[Exception]:
    try:
        call(torch.nn.functional)
    except Exception as error:
        return type(error)
    return pytest.fail("torch takes this")


@pytest.mark.parametrize("grad_output", [1.0, math.inf, math.nan])
@pytest.mark.parametrize(("name", "args"), ACTIVATIONS)
def test_kinks_and_extremes_are_torchs(name: str, args: tuple, grad_output: float) -> None:
    if name == "tanhshrink" and grad_output == math.inf:
        pytest.skip("torch subtracts two infinities there, ours stays infinite")
    if reason := lacks.activation(name, torch.float64):
        pytest.skip(reason)
    for x in torch.tensor(KINKS, dtype=torch.float64):  # in a row of them, torch's own kernels disagree on NaN
        ours = value_and_gradient(getattr(F, name), x, grad_output, *args)
        theirs = value_and_gradient(getattr(torch.nn.functional, name), x, grad_output, *args)
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def around(bounds: tuple[float, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    """Each bound as a number of this type and the two beside it; zeros, small numbers and infinities."""
    numbers = [0.0, -0.0, 0.01, -0.01, math.inf, -math.inf, *bounds]
    numbers = [torch.tensor(number, dtype=dtype) for number in numbers]
    ends = [torch.tensor(end, dtype=dtype) for end in (-math.inf, math.inf)]
    return numbers + [torch.nextafter(number, end) for number in numbers[6:] for end in ends]


# Blocks of what is computed exactly, and of what is rounded: with constants, and where the blocks meet.
PIECEWISE: dict[str, tuple[Callable[[float], tuple], Callable[[float], tuple]]] = {
    "threshold": (lambda b: (b, 20.3), lambda b: (b,)),
    "hardtanh": (lambda b: (-b, b + 1), lambda b: (-b, b + 1)),
    "hardshrink": (lambda b: (b,), lambda b: (-b, b)),
    "softshrink": (lambda b: (b,), lambda b: (-b, b)),
    "relu": (lambda _: (), lambda _: ()),
    "relu6": (lambda _: (), lambda _: (6.0,)),
    "leaky_relu": (lambda b: (b,), lambda _: ()),
    "elu": (lambda b: (b,), lambda _: ()),
    "selu": (lambda _: (), lambda _: ()),
    "hardsigmoid": (lambda _: (), lambda _: (-3.0, 3.0)),
    "hardswish": (lambda _: (), lambda _: (-3.0, 3.0)),
    "softplus": (lambda b: (b, 0.3), lambda b: (0.3 / b,)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", PIECEWISE)
def test_numbers_at_a_bound_and_beside_it_fall_as_torchs(name: str, dtype: torch.dtype) -> None:
    """No number of a narrow type is 0.1; torch rounds some functions' bounds as well. Zeros have torch's signs."""
    if reason := lacks.activation(name, dtype):
        pytest.skip(reason)
    args, bounds = PIECEWISE[name]
    exact = name in ("threshold", "hardtanh", "hardshrink", "softshrink", "relu", "relu6")
    rounding = {"rtol": 0, "atol": 0} if exact else {}
    for bound in (0.1, 0.3, 0.7, 2.7):
        for x in around(bounds(bound), dtype):
            for grad_output in (1.0, -2.0):
                ours, theirs = [
                    value_and_gradient(getattr(library, name), x, grad_output, *args(bound))
                    for library in (F, torch.nn.functional)
                ]
                torch.testing.assert_close(ours, theirs, equal_nan=True, **rounding)
                signs = [[number.nan_to_num().signbit() for number in numbers] for numbers in (ours, theirs)]
                assert signs[0] == signs[1], (bound, x)


def test_softsigns_gradient_does_not_overflow() -> None:
    largest = torch.finfo(torch.float32).max
    assert value_and_gradient(F.softsign, torch.tensor([largest, -largest]), 3.0)[1].eq(0).all()


@pytest.mark.parametrize("dtype", BITS)
def test_rounded_is_what_a_tensor_holds(dtype: torch.dtype) -> None:
    generator = random.Random(0)
    for number in (0.0, math.inf, *[generator.uniform(-3, 3) * 10 ** generator.uniform(-9, 4) for _ in range(1000)]):
        assert round_to(number, dtype) == torch.tensor(number, dtype=dtype).item()


@pytest.mark.parametrize("dtype", BITS)
def test_relus_gate_on_bits_is_where(dtype: torch.dtype) -> None:
    outputs = torch.tensor([0.0, -0.0, 1.0, math.inf, math.nan, torch.finfo(dtype).smallest_normal], dtype=dtype)
    outputs = torch.cat([outputs, -outputs[4:5]])  # a NaN of the other sign
    for value in (1.0, -2.0, 0.0, math.inf, -math.inf, math.nan):
        values = torch.full_like(outputs, value)
        expected = torch.where(outputs <= 0, 0, values)
        torch.testing.assert_close(gate(values, outputs), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", INPLACE)
def test_inplace_overwrites_the_input_and_keeps_its_gradient(name: str) -> None:
    function = getattr(F, name)
    x = torch.linspace(-4, 7, 23, dtype=torch.float64)
    y, gradient = value_and_gradient(function, x, 1.0)
    leaf = x.clone().requires_grad_()
    middle = leaf * 1
    result = function(middle, inplace=True)
    assert result is middle
    torch.testing.assert_close(result.detach(), y)
    torch.testing.assert_close(torch.autograd.grad(result.sum(), leaf)[0], gradient)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("name", [name for name, _ in ACTIVATIONS] + ["gelu", "glu"])
def test_other_types_give_what_torch_gives(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, 5, 2]).to(dtype)
    args = dict(ACTIVATIONS).get(name, ())
    try:
        expected = getattr(torch.nn.functional, name)(x, *args)
    except Exception as error:
        with pytest.raises(type(error)):
            getattr(F, name)(x, *args)
    else:
        torch.testing.assert_close(getattr(F, name)(x, *args), expected)


X = torch.linspace(-2, 2, 12).reshape(2, 3, 2)
ERRORS = {
    "celu alpha": lambda F: F.celu(X, 0.0),
    "gelu approximate": lambda F: F.gelu(X, approximate="erf"),
    "glu scalar": lambda F: F.glu(X[0, 0, 0]),
    "glu odd": lambda F: F.glu(X, 1),
    "glu dim": lambda F: F.glu(X, 3),
    "hardtanh bounds": lambda F: F.hardtanh(X, 1.0, -1.0),
    "hardtanh unsigned": lambda F: F.hardtanh(X.abs().to(torch.uint8)),
    "prelu channels": lambda F: F.prelu(X, torch.ones(2)),
    "prelu no weight": lambda F: F.prelu(X, torch.ones(0)),
    "prelu scalar": lambda F: F.prelu(X[0, 0, 0], torch.ones(3)),
    "prelu weight shape": lambda F: F.prelu(X, torch.ones(1, 3)),
    "prelu types": lambda F: F.prelu(X, torch.ones(3, dtype=torch.float64)),
    "relu of bools": lambda F: F.relu(X > 0),
    "rrelu bounds": lambda F: F.rrelu(X, 0.5, 0.1),
    "softshrink lambda": lambda F: F.softshrink(X, -1.0),
    "softmax dim": lambda F: F.softmax(X, 3),
    "softmax of integers": lambda F: F.softmax(X.long(), 0),
    "softmax to integers": lambda F: F.softmax(X, 0, dtype=torch.int64),
    "softmin of bools": lambda F: F.softmin(X > 0, 0),
    "relu of a leaf in place": lambda F: F.relu(X.clone().requires_grad_(), inplace=True),
}


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_errors_are_of_torchs_type(call: Callable) -> None:
    with pytest.raises(type_of_torchs_error(call)):
        call(F)


def test_softmax_keeps_small_gradients_beside_a_large_probability() -> None:
    """y·(d − Σ): of y·d − y·Σ, rounding would be most of what is left."""
    x = torch.tensor([0.0, 18.5], dtype=torch.float64, requires_grad=True)
    d = torch.tensor([100.3, 271.7], dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(library.softmax(x, 0), x, d)[0] for library in (F, torch.nn.functional))
    torch.testing.assert_close(ours, theirs, rtol=1e-15, atol=0)


def test_softmax2d_takes_pictures_only() -> None:
    with pytest.raises(ValueError, match="3 or 4"):
        nn.Softmax2d()(torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
def test_softmax_of_extremes(name: str) -> None:
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    rows = torch.tensor([[1e4, -1e4, 0.0], [-math.inf, 0, 1], [math.inf, 0, 1], [math.nan, 0, 1], [-math.inf] * 3])
    torch.testing.assert_close(ours(rows, 1), theirs(rows, 1), equal_nan=True)
    empty = torch.zeros(2, 0)
    assert ours(empty, 1).shape == ours(empty, 0).shape == (2, 0)
    scalar = torch.tensor(3.0)
    torch.testing.assert_close(ours(scalar, -1), theirs(scalar, -1))
    torch.testing.assert_close(
        ours(rows.half(), 1, dtype=torch.float64), theirs(rows.half(), 1, dtype=torch.float64), equal_nan=True
    )


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_softmax_without_dim_warns_and_takes_torchs(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with pytest.warns(UserWarning, match="dim"):
        ours = F.softmax(x)
    with pytest.warns(UserWarning, match="dim"):
        theirs = torch.nn.functional.softmax(x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rrelu_draws_torchs_slopes(dtype: torch.dtype) -> None:
    """The same, for elements of every sign and NaN, and as many: what is drawn next is the same too."""
    x = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).mT
    x[0, 0] = torch.tensor([0.0, -0.0, math.nan, math.inf])
    outcomes = []
    for library in (F, torch.nn.functional):
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        y = library.rrelu(leaf, 0.1, 1 / 3, training=True)
        outcomes.append((y.detach(), *torch.autograd.grad(y.sum(), leaf), torch.rand(())))
    torch.testing.assert_close(*outcomes, equal_nan=True)


def test_rrelu_draws_a_slope_where_no_element_can_be_looked_at() -> None:
    x = torch.full((10_000,), -1.0, dtype=torch.float64)
    (slopes,) = -torch.func.vmap(lambda x: F.rrelu(x, 0.2, 0.6, training=True), randomness="different")(x[None])
    assert 0.2 <= slopes.min() < 0.21
    assert 0.59 < slopes.max() <= 0.6
    assert abs(slopes.mean() - 0.4) < 4 * 0.4 / math.sqrt(12 * 10_000)  # four standard errors


def test_softsign_of_complex_numbers() -> None:
    """Its derivative is a symmetric map of pairs of reals, no product with a complex number."""
    x = torch.randn(3, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours, theirs = F.softsign(x), torch.nn.functional.softsign(x)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(y, x, x.detach() + 1j)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(F.softsign, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(F.softsign, (x,))


@pytest.mark.parametrize("name", ["relu", "max_pool2d"])
def test_gradients_that_are_lazily_negative(name: str) -> None:
    """As the imaginary part of a conjugate is: its bits are those of its opposite."""
    x = torch.randn(1, 1, 2, 8, requires_grad=True)
    ours, theirs = (
        functional.relu(x) if name == "relu" else functional.max_pool2d(x, 2) for functional in (F, torch.nn.functional)
    )
    g = torch.randn(ours.shape, dtype=torch.complex64).conj().imag
    assert g.is_neg()
    assert torch.equal(*[torch.autograd.grad(y, x, g)[0] for y in (ours, theirs)])


def test_complex_gradients_are_no_lazy_conjugates() -> None:
    """A tensor that is only marked as conjugate has no `.numpy()`."""
    x = torch.randn(3, dtype=torch.complex64, requires_grad=True)
    assert not torch.autograd.grad(F.tanh(x).abs().sum(), x)[0].is_conj()


def test_gradient_through_inplace_keeps_the_memory_format() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = F.relu(x * 1, inplace=True)
    assert torch.autograd.grad(y, x, torch.ones_like(y))[0].is_contiguous(memory_format=torch.channels_last)


def test_inplace_leaves_what_others_look_at() -> None:
    """Views, hooks and retained gradients see what they see behind torch's."""
    seen = []
    for library in (F, torch.nn.functional):
        x = torch.linspace(-2, 2, 12).reshape(2, 6).requires_grad_()
        retained, hooked, viewed = x * 1, x * 1, x * 1
        retained.retain_grad()
        hooked.register_hook(lambda grad: seen[-1].append(grad))
        seen.append([])
        for tensor in (retained, hooked, viewed[:1]):
            library.leaky_relu(tensor, inplace=True)
        (retained.square() + hooked.square() + viewed.square()).sum().backward()
        seen[-1] += [retained.grad, x.grad]
    torch.testing.assert_close(*seen)


LONG = 2 * ELEMENTWISE_BLOCK + 5


def test_long_inputs_take_batches_of_gradients() -> None:
    """A tensor that stands for many has no memory to take a block of."""
    x = torch.linspace(-3, 3, LONG, requires_grad=True)
    y = F.silu(x)
    batch = torch.stack([torch.ones(LONG), x.detach()])
    (gradients,) = torch.autograd.grad(y, x, batch, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(gradients, torch.stack([torch.autograd.grad(F.silu(x), x, g)[0] for g in batch]))
    of_sum = torch.autograd.grad(F.silu(x).sum(), x, torch.tensor([1.0, 2.0]), is_grads_batched=True)[0]
    torch.testing.assert_close(of_sum, torch.stack([gradients[0], 2 * gradients[0]]))


def test_sizes_may_be_unknown_while_operations_are_recorded() -> None:
    x, mask = torch.linspace(-3, 3, 5), torch.tensor([True, False, True, True, False])
    graph = make_fx(lambda x, mask: F.gelu(x[mask]), tracing_mode="symbolic")(x, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(graph(x, mask), torch.nn.functional.gelu(x[mask]))


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "gradient transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["leaky_relu", "silu", "gelu", "elu", "softsign", "relu", "relu6"])
def test_long_inputs_are_computed_alike(
    name: str, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks where the memory allows that, the same numbers as for short parts of the input, in the same layout."""
    monkeypatch.setattr("torchfromscratch.kernels.gate.GATE_BLOCK", ELEMENTWISE_BLOCK)
    x = torch.randn(2, 3, 1, LONG // 6 + 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    if layout == "channels last":
        x, g = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, g))
    elif layout == "transposed":
        x, g = (tensor.transpose(0, 3).contiguous().transpose(0, 3) for tensor in (x, g))
    elif layout == "gradient transposed":
        g = g.transpose(0, 3).contiguous().transpose(0, 3)
    x.requires_grad_()
    y = getattr(F, name)(x)
    (gradient,) = torch.autograd.grad(y, x, g)
    assert y.stride() == x.stride()
    parts = [part.detach().contiguous().requires_grad_() for part in x.split(1000, 3)]
    outputs = [getattr(F, name)(part) for part in parts]
    torch.testing.assert_close(y, torch.cat(outputs, 3))
    torch.testing.assert_close(gradient, torch.cat(torch.autograd.grad(outputs, parts, g.split(1000, 3)), 3))


@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "hardswish"])
def test_channels_last_stays(name: str) -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = getattr(F, name)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.grad(y.sum(), x)[0].is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=40, deadline=None)
@given(
    low=st.floats(-3, 0),
    high=st.floats(0, 3),
    alpha=st.floats(0.1, 3),
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
)
def test_any_constants_and_shapes_match_torch(
    low: float, high: float, alpha: float, shape: list[int], seed: int
) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for name, args in (
        ("hardtanh", (low, high)),
        ("threshold", (low, high)),
        ("leaky_relu", (low,)),
        ("elu", (alpha,)),
        ("celu", (alpha,)),
        ("softplus", (alpha, high)),
        ("hardshrink", (alpha,)),
        ("softshrink", (alpha,)),
        ("softmax", (-1,)),
        ("log_softmax", (0,)),
    ):
        ours = value_and_gradient(getattr(F, name), x, 1.5, *args)
        theirs = value_and_gradient(getattr(torch.nn.functional, name), x, 1.5, *args)
        torch.testing.assert_close(ours, theirs)
