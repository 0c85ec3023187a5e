"""Kernels of layers beside float64 truth: values, gradients, and gradients of gradients through the Functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch
import torchfromscratch.functional as F
from tests.triton.interpreted.spy import called
from torchfromscratch.kernels.triton.attention import WIDEST, attention_kept, fits

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Case:
    """A layer, the shapes of what it is differentiated by, and the kernels that answer, forward and backward."""

    name: str
    layer: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    kernels: tuple[str, ...]
    channels_last: bool = False

    def __str__(self) -> str:
        return self.name


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True)


def frozen_norm(x: Tensor, *parameters: Tensor) -> Tensor:
    """Batch norm in evaluation, with statistics that every type holds exactly."""
    channels = torch.arange(x.shape[1], dtype=x.dtype)
    return F.batch_norm(x, channels - 1, channels + 0.5, *parameters)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, 3, weight, bias)


def classes(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape) % 5


LONG = 2**14 + 3  # too many for a program to hold, and no multiple of its blocks
WEIGHTS = 1 + torch.arange(LONG, dtype=torch.float64) % 3
IGNORED = classes(3, 4).masked_fill(classes(3, 4) == 2, -100)
MASK = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FORBIDDEN = (MASK > 0.3) & (torch.arange(5) > 0).unsqueeze(1)  # in the first row nothing is, in others some
NORM, POOL, MEAN = ("normalize_rows", "row_gradients"), ("max_windows", "fetch_transpose"), ("average",)
FROZEN = ("scale_channels", "channel_gradients")
BLOCKS = ("normalize_blocks", "block_gradients")
POSITIONS = ("max_positions", "fetch_transpose")
BATCH_NORM, ATTEND = ("normalize_batch", "batch_gradients"), ("attend", "attend_gradients")
MEAN = ("average", "average_transpose")
NLL = ("likelihood", "likelihood_gradient")
EMBEDDING = ("look_up_rows", "sum_rows")
ENTROPY, SOFTMAX = ("cross_entropy", "cross_entropy_gradient"), ("softmax", "softmax_gradient")

CASES = [
    Case("batch norm", batch_norm, ((3, 2, 5, 7), (2,), (2,)), BATCH_NORM),
    Case("batch norm, channels last", batch_norm, ((3, 5, 5, 7), (5,), (5,)), BATCH_NORM, channels_last=True),
    Case("batch norm of rows", batch_norm, ((9, 6), (6,), (6,)), BATCH_NORM),
    Case("batch norm in evaluation", frozen_norm, ((3, 2, 5, 7), (2,), (2,)), FROZEN),
    Case("in evaluation, channels last", frozen_norm, ((3, 5, 5, 7), (5,), (5,)), FROZEN, channels_last=True),
    Case("in evaluation, without γ", frozen_norm, ((9, 6),), FROZEN[:1]),
    Case("layer norm", lambda x, w, b: F.layer_norm(x, (5, 3), w, b), ((7, 5, 3), (5, 3), (5, 3)), NORM),
    Case("RMS norm", lambda x, w: F.rms_norm(x, (6,), w), ((7, 6), (6,)), NORM),
    Case("group norm", lambda x, w, b: F.group_norm(x, 2, w, b), ((3, 6, 5), (6,), (6,)), NORM),
    Case("instance norm", lambda x: F.instance_norm(x), ((2, 3, 5, 3),), NORM),
    Case(
        "layer norm of long rows", lambda x, w, b: F.layer_norm(x, (8195,), w, b), ((2, 8195), (8195,), (8195,)), BLOCKS
    ),
    Case("RMS norm of long rows", lambda x, w: F.rms_norm(x, (3, 2800), w), ((2, 3, 2800), (3, 2800)), BLOCKS),
    Case("group norm of long rows", lambda x, w, b: F.group_norm(x, 2, w, b), ((2, 6, 71, 41), (6,), (6,)), BLOCKS),
    Case("instance norm of long rows", lambda x: F.instance_norm(x), ((1, 1, 3, 2800),), BLOCKS),
    Case("group norm, channels last", group_norm, ((2, 6, 5, 7), (6,), (6,)), BLOCKS, channels_last=True),
    Case("group norm of one channel each", group_norm, ((3, 3, 2, 5), (3,), (3,)), BLOCKS, channels_last=True),
    Case("max pooling", lambda x: F.max_pool2d(x, 2), ((2, 3, 7, 6),), POOL),
    Case("overlapping", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), ((2, 3, 7, 6),), POOL, channels_last=True),
    Case("dilated", lambda x: F.max_pool1d(x, 3, 1, 1, dilation=2), ((2, 3, 9),), POOL),
    Case("in space", lambda x: F.max_pool3d(x, (1, 2, 3), (1, 2, 1)), ((1, 2, 3, 5, 4),), POOL),
    Case(
        "with positions",
        lambda x: F.max_pool2d(x, 3, 2, 1, (1, 2), return_indices=True)[0],
        ((2, 3, 7, 6),),
        POSITIONS,
        channels_last=True,
    ),
    Case("uneven spans", lambda x: F.adaptive_max_pool2d(x, (3, 4)), ((2, 3, 7, 6),), ("max_span_positions",)),
    Case("average pooling", lambda x: F.avg_pool2d(x, 3, 2, 1), ((2, 3, 7, 6),), MEAN, channels_last=True),
    Case("without padding", lambda x: F.avg_pool1d(x, 3, 2, 1, True, False), ((2, 3, 8),), MEAN),
    Case("adaptive", lambda x: F.adaptive_avg_pool2d(x, (3, 9)), ((2, 3, 7, 6),), MEAN),
    Case("softmax", lambda x: F.softmax(x, 1), ((3, 5, 4),), SOFTMAX),
    Case("log softmax", lambda x: F.log_softmax(x, -1), ((3, 5),), SOFTMAX),
    Case("cross-entropy", lambda z: F.cross_entropy(z, classes(7)), ((7, 5),), ENTROPY),
    Case(
        "cross-entropy with everything",
        lambda z: F.cross_entropy(z, IGNORED, torch.arange(1.0, 6).to(z.dtype), label_smoothing=0.2, reduction="sum"),
        ((3, 5, 4),),
        ENTROPY,
    ),
    Case("probabilities", lambda z: F.cross_entropy(z, z.detach().abs()), ((7, 5),), ENTROPY),
    Case("softmax of long rows", lambda x: F.softmax(x, -1), ((2, LONG),), SOFTMAX),
    Case("log softmax of long rows", lambda x: F.log_softmax(x, 1), ((2, LONG, 3),), SOFTMAX),
    Case("cross-entropy of a vocabulary", lambda z: F.cross_entropy(z, classes(3)), ((3, LONG),), ENTROPY),
    Case(
        "cross-entropy of a vocabulary with everything",
        lambda z: F.cross_entropy(
            z, classes(1, 3).masked_fill(classes(1, 3) == 1, -100), WEIGHTS.to(z.dtype), label_smoothing=0.2
        ),
        ((1, LONG, 3),),
        ENTROPY,
    ),
    Case(
        "densities of a vocabulary", lambda z: F.cross_entropy(z, (z.detach() > 3).to(z.dtype)), ((2, LONG),), ENTROPY
    ),
    Case("NLL", lambda x: F.nll_loss(x, classes(7)), ((7, 5),), NLL),
    Case("NLL of a vocabulary", lambda x: F.nll_loss(x, classes(2), reduction="none"), ((2, LONG),), NLL),
    Case(
        "NLL with everything",
        lambda x: F.nll_loss(x, IGNORED, torch.arange(1.0, 6).to(x.dtype)),
        ((3, 5, 4),),
        NLL,
    ),
    Case("embedding", lambda w: F.embedding(classes(3, 4) + 1, w, padding_idx=3), ((8, 5),), EMBEDDING),
    Case(
        "embedding by frequency",
        lambda w: F.embedding(classes(13).int(), w, scale_grad_by_freq=True),
        ((5, 1),),
        EMBEDDING,
    ),
    Case("attention", F.scaled_dot_product_attention, ((2, 5, 4), (2, 7, 4), (2, 7, 3)), ATTEND),
    Case(
        "masked attention",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, ~FORBIDDEN),
        ((5, 4), (7, 4), (7, 3)),
        ATTEND,
    ),
    Case(
        "biased attention of grouped heads",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, MASK.to(q.dtype), enable_gqa=True),
        ((1, 4, 5, 3), (1, 2, 7, 3), (1, 2, 7, 20)),
        ATTEND,
    ),
    Case(
        "causal attention",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ((2, 1, 5, 4), (2, 1, 5, 4), (2, 1, 5, 4)),
        ATTEND,
    ),
]


def tensors(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """Half of them far from 0, so that sums cancel."""
    torch.manual_seed(0)
    given = [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in case.shapes]
    given[0] = given[0] + (2 if "norm" in case.name else 0)
    return [given[0].to(memory_format=torch.channels_last) if case.channels_last else given[0], *given[1:]]


def derivatives(layer: Callable[..., Tensor], given: list[Tensor], second: bool) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    y = layer(*leaves)
    g = (torch.arange(y.numel()).view_as(y) % 17 / 8 - 1).to(y.dtype)  # exact in every type
    first = torch.autograd.grad(y, leaves, g, retain_graph=True)
    if not second:
        return [y.detach(), *first]
    differentiable = torch.autograd.grad((g * y * y).sum(), leaves, create_graph=True)
    return [y.detach(), *first, *torch.autograd.grad(sum([d.square().sum() for d in differentiable]), leaves)]


def by_plain_arithmetic(function: Callable[..., Any], *args: Any) -> Any:
    with torchfromscratch.algorithm("reference"):
        return function(*args)


def assert_equal(case: Case, given: list[Tensor], second: bool = False) -> None:
    with called(*case.kernels):
        found = derivatives(case.layer, given, second)
    exact = by_plain_arithmetic(derivatives, case.layer, [tensor.double() for tensor in given], second)
    plain = by_plain_arithmetic(derivatives, case.layer, given, second)
    for result, expected, truth in zip(found, plain, exact, strict=True):
        assert (result.dtype, result.stride()) == (expected.dtype, expected.stride())
        scale = 1 + truth.abs().max()
        assert (result.double() - truth).abs().max() / scale <= TOLERANCES[result.dtype]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_derivatives_of_both_orders(case: Case) -> None:
    assert_equal(case, tensors(case, torch.float64), second=True)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16])
def test_narrow_types(case: Case, dtype: torch.dtype) -> None:
    assert_equal(case, tensors(case, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_further_types(case: Case, dtype: torch.dtype) -> None:
    assert_equal(case, tensors(case, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_running_statistics(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, mean, variance = torch.randn(4, 3, 5).to(dtype), torch.randn(3).to(dtype), torch.rand(3).to(dtype)
    exact_mean, exact_variance = mean.double(), variance.double()
    torch.nn.functional.batch_norm(x.double(), exact_mean, exact_variance, training=True, momentum=0.3)
    with called("update_running"):
        F.batch_norm(x, mean, variance, training=True, momentum=0.3)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=0, atol=TOLERANCES[dtype])
    torch.testing.assert_close(variance.double(), exact_variance, rtol=0, atol=TOLERANCES[dtype])


DROPPED: dict[str, dict[str, Any]] = {
    "alone": {},
    "causal": {"is_causal": True},
    "masked": {"attn_mask": ~FORBIDDEN},
    "grouped": {"enable_gqa": True},
}


def attention_with_noise(options: dict[str, Any], noise: Tensor) -> Callable[..., Tensor]:
    """The definition, P ∘ N written out."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if "enable_gqa" in options:
            key, value = [tensor.repeat_interleave(2, -3) for tensor in (key, value)]
        scores = query @ key.mT / query.shape[-1] ** 0.5
        allowed = options.get("attn_mask")
        if "is_causal" in options:
            allowed = torch.ones(5, 7, dtype=torch.bool).tril()
        scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
        return (scores.softmax(-1) * noise) @ value

    return attend


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", DROPPED)
def test_attention_drops_the_same_forward_and_backward(name: str, dtype: torch.dtype) -> None:
    """Values and derivatives of both orders beside those of the noise that the seed stands for."""
    torch.manual_seed(0)
    options, heads = DROPPED[name], 1 if name == "grouped" else 2
    shapes = (1, 2, 5, 6), (1, heads, 7, 6), (1, heads, 7, 3)
    given = [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]
    torch.manual_seed(1)
    seed = torch.empty((), dtype=torch.int64).random_()
    noise = attention_kept(seed, (1, 2, 5, 7), 0.3).double() / 0.7
    dropped = lambda *qkv: F.scaled_dot_product_attention(*qkv, dropout_p=0.3, **options)  # noqa: E731
    torch.manual_seed(1)
    with called(*ATTEND):
        found = derivatives(dropped, given, second=dtype == torch.float64)
    exact = derivatives(attention_with_noise(options, noise), [tensor.double() for tensor in given], second=True)
    for result, truth in zip(found, exact, strict=False):
        assert (result.double() - truth).abs().max() / (1 + truth.abs().max()) <= TOLERANCES[dtype]


def test_transforms_of_attention_with_dropout() -> None:
    """Forward mode, and a batch of gradients, for which no kernel is made, drop what the kernels do."""
    torch.manual_seed(0)
    given = [torch.randn(2, 5, 6, dtype=torch.float64) for _ in range(3)]
    tangents = [torch.randn(2, 5, 6, dtype=torch.float64) for _ in range(3)]
    batch = torch.randn(3, 2, 5, 6, dtype=torch.float64)
    torch.manual_seed(1)
    noise = attention_kept(torch.empty((), dtype=torch.int64).random_(), (2, 5, 5), 0.4).double() / 0.6
    exact, dropped = attention_with_noise({}, noise), lambda *qkv: F.scaled_dot_product_attention(*qkv, dropout_p=0.4)
    torch.manual_seed(1)
    found = torch.func.jvp(dropped, tuple(given), tuple(tangents))
    torch.testing.assert_close(found, torch.func.jvp(exact, tuple(given), tuple(tangents)))
    leaves = [tensor.requires_grad_() for tensor in given]
    torch.manual_seed(1)
    found = torch.autograd.grad(dropped(*leaves), leaves, batch, is_grads_batched=True)
    torch.testing.assert_close(found, torch.autograd.grad(exact(*leaves), leaves, batch, is_grads_batched=True))


def test_what_dropout_keeps() -> None:
    """As many as it should, in every row and column; others for each seed; and none, or an error, at the ends."""
    seeds = [torch.tensor(seed) for seed in (0, 1, 2**62 + 1)]
    kept = torch.stack([attention_kept(seed, (3, 100, 100), 0.3) for seed in seeds]).double()
    assert (kept.mean() - 0.7).abs() < 0.01
    for other_dims in ((0, 1, 2), (0, 1, 3)):
        assert (kept.mean(other_dims) - 0.7).abs().max() < 0.08
    assert (torch.corrcoef(kept.flatten(1)) - torch.eye(3)).abs().max() < 0.03
    q = torch.randn(1, 5, 4)
    assert not F.scaled_dot_product_attention(q, q, q, dropout_p=1.0).any()
    with pytest.raises(RuntimeError, match="between 0 and 1, but got"):
        F.scaled_dot_product_attention(q, q, q, dropout_p=1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_attention_of_the_widest_heads(dtype: torch.dtype) -> None:
    widest = WIDEST[dtype]
    wide = Case("", F.scaled_dot_product_attention, ((5, widest), (7, widest), (7, widest - 1)), ATTEND)
    assert_equal(wide, tensors(wide, dtype))
    assert not fits(*[torch.empty(5, widest + 1, dtype=dtype)] * 3)


def test_transforms_take_plain_arithmetic() -> None:
    """vmap, forward mode and their compositions, which kernels have no rule for."""
    q, k, v = [torch.randn(3, 5, 4, dtype=torch.float64) for _ in range(3)]
    layers = {
        "attention": (F.scaled_dot_product_attention, q, k, v),
        "softmax": (lambda x: F.softmax(x, -1), q),
        "max pooling": (lambda x: F.max_pool1d(x, 2), q),
        "average": (lambda x: F.avg_pool1d(x, 2), q),
        "layer norm": (lambda x: F.layer_norm(x, (4,)), q),
    }
    for name, (layer, *given) in layers.items():
        gradient = torch.func.grad(lambda *given, layer=layer: layer(*given).square().sum())
        expected = gradient(*given)
        torch.testing.assert_close(torch.vmap(gradient)(*given), expected, msg=name)
        moved = tuple(torch.ones_like(tensor) for tensor in given)
        _, tangent = torch.func.jvp(layer, tuple(given), moved)
        _, expected = by_plain_arithmetic(torch.func.jvp, layer, tuple(given), moved)
        torch.testing.assert_close(tangent, expected, msg=name)


def test_a_compiler_gets_plain_arithmetic() -> None:
    """Of tensors on meta, as of those on CUDA: whole, without a break in the graph."""

    def network(x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.max_pool2d(F.relu(F.batch_norm(x, None, None, training=True)), 2), 2)
        x = F.layer_norm(F.scaled_dot_product_attention(x, x, x), (4,))
        return F.cross_entropy(x, F.softmax(x, 1).detach())

    x = torch.randn(2, 3, 16, 16, device="meta", requires_grad=True)
    torch.compile(network, backend="aot_eager", fullgraph=True)(x).backward()
    assert x.grad is not None


def test_an_empty_batch() -> None:
    for case in CASES[:6] + CASES[7:10]:
        given = tensors(case, torch.float32)
        x = given[0][:0].requires_grad_()
        if case.kernels == BATCH_NORM:
            continue
        y = case.layer(x, *given[1:])
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_a_class_that_does_not_exist_makes_the_loss_nan() -> None:
    """A kernel cannot raise; nor may it answer as if there were such a class."""
    for length in (4, LONG):
        z = torch.randn(3, length, requires_grad=True)
        for loss in (F.cross_entropy, F.nll_loss):
            losses = loss(z, torch.tensor([0, length, 1]), reduction="none")
            assert losses.isnan().tolist() == [False, True, False]
            (gradient,) = torch.autograd.grad(losses.sum(), z)
            assert gradient.isnan().all(1).tolist() == gradient.isnan().any(1).tolist() == [False, True, False]


def test_an_index_that_does_not_exist_is_answered_with_nan() -> None:
    weight = torch.ones(4, 3, requires_grad=True)
    rows = F.embedding(torch.tensor([[0, 4], [-1, 3]]), weight)
    assert rows.isnan().all(-1).tolist() == rows.isnan().any(-1).tolist() == [[False, True], [True, False]]
    (gradient,) = torch.autograd.grad(rows.sum(), weight)
    assert gradient.sum(1).tolist() == [3, 0, 0, 3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dropout_draws_from_torchs_generator(dtype: torch.dtype) -> None:
    """One launch each way; the gradient has the mask of the value, in whatever format it comes."""
    x = torch.randn(2, 3, 60, 40).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    torch.manual_seed(1)
    with called("drop_at_random"):
        y = F.dropout(x, 0.3)
    mask = y != 0
    torch.testing.assert_close(y, mask * x / 0.7)
    assert y.stride() == x.stride()
    assert abs(mask.double().mean() - 0.7) < 0.02  # five standard deviations
    with called("elementwise"):
        (first,) = torch.autograd.grad(y, x, torch.ones(x.shape, dtype=dtype), create_graph=True)
    torch.testing.assert_close(first, mask.to(dtype) / 0.7)
    torch.manual_seed(1)
    assert torch.equal(F.dropout(x, 0.3), y)
    assert not torch.equal(F.dropout(x, 0.3), y)


def test_dropout_at_its_edges() -> None:
    x = torch.tensor([1.0, torch.inf, torch.nan, 2.0], requires_grad=True)
    assert torch.equal(F.dropout(x[:1], 0.0), x[:1])
    assert torch.equal(F.dropout(x[3:], 1.0), torch.zeros(1))
    assert F.dropout(x[:0], 0.5).shape == (0,)
    torch.manual_seed(0)
    y = torch.stack([F.dropout(x[::2], 0.5) for _ in range(10)])  # not contiguous, and 0·NaN is NaN, as in torch.nn
    assert {*y[:, 0].tolist()} == {0.0, 2.0}
    assert y[:, 1].isnan().all()
    _, tangent = torch.func.jvp(lambda x: F.dropout(x, 0.5).square().sum(), (x.detach()[:1],), (torch.ones(1),))
    assert tangent.item() in (0.0, 8.0)


def test_dropout_is_differentiated_twice() -> None:
    def layer(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return F.dropout(x, 0.4) ** 3

    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, x, fast_mode=True)


def test_nan_and_infinity_in_rows() -> None:
    rows = torch.zeros(4, 5, dtype=torch.float64)
    rows[0], rows[1, 2], rows[2, 3], rows[3, 1] = -torch.inf, torch.nan, -torch.inf, torch.inf
    long = torch.zeros(5, LONG, dtype=torch.float64)
    long[:4, -5:], long[4, : 2**14] = rows, -torch.inf
    long[0] = -torch.inf
    for layer in (F.softmax, F.log_softmax):
        for x in (rows, long):
            with called("softmax"):
                found = layer(x, -1)
            torch.testing.assert_close(found, by_plain_arithmetic(layer, x, -1), equal_nan=True)


POOLS = {
    "windows": lambda functional, x: functional.max_pool2d(x, 3, 2, 1, return_indices=True),
    "in a row": lambda functional, x: functional.max_pool1d(x[0], 2, return_indices=True),
    "in space": lambda functional, x: functional.max_pool3d(x, (2, 3, 2), 2, 1, (1, 1, 2), True, True),
    "even spans": lambda functional, x: functional.adaptive_max_pool2d(x, (3, 2), return_indices=True),
    "uneven spans": lambda functional, x: functional.adaptive_max_pool2d(x, (4, 9), return_indices=True),
    "uneven spans in space": lambda functional, x: functional.adaptive_max_pool3d(x, (2, 4, 3), return_indices=True),
}


@pytest.mark.parametrize("name", POOLS)
def test_ties_and_nan_among_the_windows(name: str) -> None:
    """Values, positions and the gradient, which goes to the same elements as torch's."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (2, 3, 9, 8)).double()
    x[x == 2], x[x == -2] = torch.nan, -torch.inf
    x.requires_grad_()
    found, expected = POOLS[name](F, x), POOLS[name](torch.nn.functional, x)
    torch.testing.assert_close(found, expected, equal_nan=True)
    (largest, _), (theirs, _) = found, expected
    torch.testing.assert_close(*[torch.autograd.grad(y, x, torch.ones_like(y)) for y in (largest, theirs)])
