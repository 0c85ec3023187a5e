"""Losses where the cases say nothing: targets of every kind, errors, infinities, types, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchfromscratch.functional as F
from tests import lacks
from torchfromscratch import nn
from torchfromscratch.kernels import blocking

THEIRS = torch.nn.functional


def value_and_gradients(function: Callable, tensors: list[torch.Tensor], *args: Any, **options: Any) -> tuple:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = function(*leaves, *args, **options)
    return value.detach(), *torch.autograd.grad(value, leaves, torch.ones_like(value))


def type_of_torchs_error(call: Callable) -> type[Exception]:
    try:
        call(torch.nn.functional)
    except Exception as error:
        return type(error)
    return pytest.fail("torch takes this")


def assert_as_torch(name: str, tensors: list[torch.Tensor], *args: Any, **options: Any) -> None:
    ours = value_and_gradients(getattr(F, name), tensors, *args, **options)
    theirs = value_and_gradients(getattr(THEIRS, name), tensors, *args, **options)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_gradient_of_softmax_cross_entropy_is_y_minus_target() -> None:
    z = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, 0, 4, 4])
    (gradient,) = torch.autograd.grad(F.cross_entropy(z, target, reduction="sum"), z)
    one_hot = torch.eye(5, dtype=torch.float64)[target]
    torch.testing.assert_close(gradient, z.detach().softmax(1) - one_hot)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 4),
    classes=st.integers(1, 5),
    extra=st.lists(st.integers(1, 3), max_size=3),
    weighted=st.booleans(),
    ignored=st.integers(-2, 4),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    reduction=st.sampled_from(["none", "mean", "sum"]),
    probabilities=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_target_matches_torch(
    batch: int,
    classes: int,
    extra: list[int],
    weighted: bool,
    ignored: int,
    smoothing: float,
    reduction: str,
    probabilities: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, classes, *extra, generator=generator, dtype=torch.float64)
    weight = torch.rand(classes, generator=generator, dtype=torch.float64) if weighted else None
    options = {"weight": weight, "reduction": reduction}
    if probabilities:
        target = torch.rand(z.shape, generator=generator, dtype=torch.float64)
        assert_as_torch("cross_entropy", [z, target], label_smoothing=smoothing, **options)
        return
    target = torch.randint(classes, (batch, *extra), generator=generator)
    if ignored < 0:
        target = torch.where(torch.rand(target.shape, generator=generator) < 0.5, ignored, target)
    options |= {"ignore_index": ignored}
    assert_as_torch("nll_loss", [z], target, **options)
    assert_as_torch("cross_entropy", [z], target, label_smoothing=smoothing, **options)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "row",
    [[-math.inf, 0.0, 1.0], [1e4, -1e4, 0.0], [math.inf, 0.0, 1.0], [math.nan, 0.0, 1.0], [-math.inf] * 3],
)
def test_extreme_logits_are_torchs(row: list[float], smoothing: float, reduction: str) -> None:
    z = torch.tensor([row, [0.0, 1.0, 2.0], row], dtype=torch.float64)
    target = torch.tensor([1, 0, -100])
    assert_as_torch("cross_entropy", [z], target, label_smoothing=smoothing, reduction=reduction)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mean_over_ignored_targets_only_is_nan(smoothing: float) -> None:
    z, target = torch.randn(3, 4), torch.full((3,), -100)
    assert F.cross_entropy(z, target, label_smoothing=smoothing).isnan()
    assert F.cross_entropy(z, target, label_smoothing=smoothing, reduction="sum") == 0


def test_classes_are_never_spread_out() -> None:
    """One matrix the size of the logits at a time, forward and backward, beside what torch.nn keeps too."""
    rows, classes = 8, 20_000
    z = torch.randn(rows, classes, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda t: t):
        F.cross_entropy(z, torch.randint(classes, (rows,)))
    large = {tensor.data_ptr() for tensor in saved if tensor.numel() >= z.numel()}
    assert len(large) == 1  # log softmax(z)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.7}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("huber_loss", {"delta": 0.7}),
        ("binary_cross_entropy_with_logits", {}),
        ("kl_div", {"log_target": True}),
    ],
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("piece", [2, blocking.ELEMENTWISE_BLOCK])
def test_differences_of_every_size_match_torch(
    name: str, options: dict, reduction: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in blocks, which a mean's gradient, one number for all, is not cut into."""
    monkeypatch.setattr(blocking, "ELEMENTWISE_BLOCK", piece)
    x = torch.tensor([0.0, 0.3, 0.7, -0.7, 1.0, -5.0, 40.0, -800.0, math.nan], dtype=torch.float64)
    assert_as_torch(name, [x, torch.zeros_like(x)], reduction=reduction, **options)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_certain_probabilities_match_torch(reduction: str) -> None:
    x = torch.tensor([0.0, 1.0, 0.0, 1.0, 1e-30, 1e-13, 0.5], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.25], dtype=torch.float64)
    assert_as_torch("binary_cross_entropy", [x, y], reduction=reduction)


PAIRWISE = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((1, 4), (3, 4)), ((), ()), ((0, 4), (0, 4))])
def test_shapes_are_broadcast_as_torch_does(name: str, shapes: tuple) -> None:
    x, y = (torch.rand(shape, dtype=torch.float64) + 0.1 for shape in shapes)
    assert_as_torch(name, [x, y])


@pytest.mark.parametrize("name", PAIRWISE[:4])
def test_broadcasting_warns(name: str) -> None:
    with pytest.warns(UserWarning, match="broadcast"):
        getattr(F, name)(torch.rand(3, 4), torch.rand(4))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("input", DTYPES)
@pytest.mark.parametrize("name", [*PAIRWISE, "binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_pairs_of_types_give_what_torch_gives(name: str, input: torch.dtype, target: torch.dtype) -> None:
    x, y = torch.tensor([0.25, 1.0, 0.0]).to(input), torch.tensor([1.0, 0.5, 0.0]).to(target)
    try:
        expected = getattr(THEIRS, name)(x, y)
    except Exception as error:
        with pytest.raises(type(error)):
            getattr(F, name)(x, y)
    else:
        coarsest = max([torch.finfo(dtype).eps for dtype in (input, target) if dtype.is_floating_point], default=0)
        torch.testing.assert_close(getattr(F, name)(x, y), expected, rtol=4 * coarsest, atol=4 * coarsest)


Z, T, P = torch.randn(3, 5), torch.tensor([1, 2, 4]), torch.full((3, 5), 0.2)
PICTURES, LABELS = torch.randn(2, 5, 3, 4), torch.zeros(2, 3, 4, dtype=torch.int64)
ERRORS = {
    "class too large": lambda F: F.cross_entropy(Z, T + 5),
    "class negative": lambda F: F.cross_entropy(Z, T - 2),
    "class too large with weights": lambda F: F.cross_entropy(Z, T + 5, torch.ones(5)),
    "class too large with smoothing": lambda F: F.cross_entropy(Z, T + 5, label_smoothing=0.1),
    "class too large, nll": lambda F: F.nll_loss(Z, T + 5),
    "class too large, pictures": lambda F: F.cross_entropy(PICTURES, LABELS + 5),
    "int32 classes": lambda F: F.cross_entropy(Z, T.int()),
    "float classes": lambda F: F.cross_entropy(Z, T.float()),
    "boolean classes": lambda F: F.cross_entropy(Z, T > 1),
    "integer probabilities": lambda F: F.cross_entropy(Z, P.long()),
    "integer logits": lambda F: F.cross_entropy(Z.long(), T),
    "complex logits": lambda F: F.cross_entropy(Z + 0j, T),
    "another batch size": lambda F: F.cross_entropy(Z, T[:2]),
    "another batch size, pictures": lambda F: F.cross_entropy(PICTURES, LABELS[:1]),
    "target with too many dimensions": lambda F: F.cross_entropy(Z, LABELS[0]),
    "target with too few dimensions": lambda F: F.cross_entropy(PICTURES, LABELS[:, 0]),
    "target of another size": lambda F: F.cross_entropy(PICTURES, LABELS[:, :2]),
    "scalar target of a batch": lambda F: F.nll_loss(Z, T[0]),
    "scalar log-probabilities": lambda F: F.nll_loss(Z[0, 0], T[0]),
    "weights of too few classes": lambda F: F.cross_entropy(Z, T, torch.ones(4)),
    "weights of too few classes, probabilities": lambda F: F.cross_entropy(Z, P, torch.ones(4)),
    "no classes": lambda F: F.cross_entropy(Z[:, :0], T, label_smoothing=0.1),
    "weights in a list": lambda F: F.cross_entropy(Z, T, [1.0] * 5),
    "weights of two dimensions": lambda F: F.cross_entropy(Z, T, torch.ones(5, 1)),
    "weights of another type": lambda F: F.cross_entropy(Z, T, torch.ones(5, dtype=torch.float64)),
    "smoothing above one": lambda F: F.cross_entropy(Z, T, label_smoothing=1.5),
    "unknown reduction": lambda F: F.cross_entropy(Z, T, reduction="average"),
    "unknown reduction, mse": lambda F: F.mse_loss(Z, P, reduction="batchmean"),
    "mse weights of another shape": lambda F: F.mse_loss(Z, P, weight=torch.ones(5)),
    "huber weights of another shape": lambda F: F.huber_loss(Z, P, weight=torch.ones(5)),
    "shapes that do not broadcast": lambda F: F.mse_loss(Z[:2], P),
    "delta of zero": lambda F: F.huber_loss(Z, P, delta=0.0),
    "negative beta": lambda F: F.smooth_l1_loss(Z, P, beta=-1.0),
    "bce target of another shape": lambda F: F.binary_cross_entropy(P, P[0]),
    "bce with logits, target of another shape": lambda F: F.binary_cross_entropy_with_logits(Z, P[0]),
    "bce of no probability": lambda F: F.binary_cross_entropy(Z * 10, P),
    "bce of NaN": lambda F: F.binary_cross_entropy(Z * math.nan, P),
    "bce with no probability for a target": lambda F: F.binary_cross_entropy(P, Z * 10),
    "bce weights that do not fit": lambda F: F.binary_cross_entropy(P, P, torch.ones(2)),
    "pos_weight that does not fit": lambda F: F.binary_cross_entropy_with_logits(Z, P, pos_weight=torch.ones(3)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_errors_are_of_torchs_type(call: Callable) -> None:
    with pytest.raises(type_of_torchs_error(call)):
        call(F)


def test_two_targets_without_a_batch_raise_as_in_newer_torch() -> None:
    with pytest.raises(ValueError, match="one target, but got 2"):
        F.cross_entropy(Z[0], T[:2])
    lacks.assert_raises(ValueError, lambda: torch.nn.functional.cross_entropy(Z[0], T[:2]))


def test_a_class_out_of_range_is_named() -> None:
    with pytest.raises(IndexError, match="Target 9 is out of bounds"):
        F.cross_entropy(Z, torch.tensor([1, 9, 2]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("size_average", "reduce"), [(False, None), (None, False), (True, True), (False, True)])
@pytest.mark.parametrize(
    "name",
    ["mse_loss", "l1_loss", "smooth_l1_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits"],
)
def test_deprecated_reduction_arguments_have_the_last_word(
    name: str, size_average: bool | None, reduce: bool | None
) -> None:
    assert_as_torch(name, [P.double(), P.double() / 2], size_average=size_average, reduce=reduce, reduction="sum")
    assert_as_torch("cross_entropy", [Z.double()], T, size_average=size_average, reduce=reduce)


def test_kl_div_as_mean_warns() -> None:
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(Z, P)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_logits_are_rounded_once(dtype: torch.dtype) -> None:
    z = (4 * torch.randn(64, 100, generator=torch.Generator().manual_seed(0))).to(dtype)
    target = torch.arange(64)
    truth = THEIRS.cross_entropy(z.double(), target)
    loss = F.cross_entropy(z, target)
    assert loss.dtype == dtype
    assert (loss - truth).abs() <= torch.finfo(dtype).eps / 2 * truth.abs() * 1.01


def test_modules_hand_every_option_on() -> None:
    weight = torch.rand(5)
    z = torch.randn(4, 5)
    target = torch.tensor([0, 3, 4, 2])
    for ours, theirs, inputs in [
        (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss, (z, target)),
        (nn.NLLLoss, torch.nn.NLLLoss, (z, target)),
    ]:
        options = {"weight": weight, "ignore_index": 3, "reduction": "sum"}
        torch.testing.assert_close(ours(**options)(*inputs), theirs(**options)(*inputs))
    options = {"weight": weight, "pos_weight": weight + 1, "reduction": "none"}
    expected = torch.nn.BCEWithLogitsLoss(**options)(z, z.sigmoid())
    torch.testing.assert_close(nn.BCEWithLogitsLoss(**options)(z, z.sigmoid()), expected)
    expected = torch.nn.BCELoss(weight, reduction="sum")(z.sigmoid(), z.sigmoid())
    torch.testing.assert_close(nn.BCELoss(weight, reduction="sum")(z.sigmoid(), z.sigmoid()), expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("types", [(torch.complex128, torch.complex128), (torch.complex64, torch.float32)], ids=str)
def test_l1_loss_of_complex_numbers(types: tuple[torch.dtype, torch.dtype], reduction: str) -> None:
    """The absolute value of the difference, with torch's gradients, and none where the two are equal."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 4, dtype=dtype, generator=generator) for dtype in types)
    x[0] = y[0]
    assert_as_torch("l1_loss", [x, y], reduction=reduction)


@pytest.mark.parametrize("name", ["poisson_nll_loss", "gaussian_nll_loss", "multilabel_soft_margin_loss"])
def test_losses_of_real_numbers_refuse_complex_ones(name: str) -> None:
    further = [torch.ones(3, 5)] if name == "gaussian_nll_loss" else []
    with pytest.raises(NotImplementedError, match="complex64"):
        getattr(F, name)(Z + 1j, P, *further)


def test_derivatives_of_complex_l1_loss() -> None:
    x, y = (torch.randn(3, 4, dtype=torch.complex128, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(F.l1_loss, (x, y), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(F.l1_loss, (x, y))


def test_l1_loss_of_small_integers_does_not_overflow() -> None:
    x, y = torch.full((3,), 200, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8)
    torch.testing.assert_close(F.l1_loss(x, y, reduction="sum"), THEIRS.l1_loss(x, y, reduction="sum"))


def test_logits_of_another_type_than_the_target_are_not_rounded_to_either() -> None:
    z, y = torch.tensor([0.3, -1.2]), torch.tensor([0.2, 0.7], dtype=torch.float64)
    expected = THEIRS.binary_cross_entropy_with_logits(z.double(), y)
    torch.testing.assert_close(F.binary_cross_entropy_with_logits(z, y), expected, rtol=1e-14, atol=0)


LAYOUTS = {
    "contiguous": lambda tensor: tensor.contiguous(),
    "channels last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    "transposed": lambda tensor: tensor.transpose(1, 3).contiguous().transpose(1, 3),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("target_layout", LAYOUTS)
@pytest.mark.parametrize("input_layout", LAYOUTS)
@pytest.mark.parametrize(
    "name",
    ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits", "kl_div"],
)
def test_losses_and_gradients_lie_as_torchs(name: str, input_layout: str, target_layout: str, reduction: str) -> None:
    x, y = (torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    x, y = LAYOUTS[input_layout](x), LAYOUTS[target_layout](y)
    with_target = name in ("mse_loss", "l1_loss")
    strides = []
    for library in (F, THEIRS):
        given = [x.detach().requires_grad_(), y.detach().requires_grad_(with_target)]
        loss = getattr(library, name)(*given, reduction=reduction)
        gradients = torch.autograd.grad(loss, given[: 1 + with_target], torch.ones_like(loss))
        strides.append([tensor.stride() for tensor in (loss, *gradients)])
    assert strides[0] == strides[1]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_of_cross_entropy_lies_as_torchs(memory_format: torch.memory_format, smoothing: float) -> None:
    z = torch.randn(2, 5, 3, 4).contiguous(memory_format=memory_format).requires_grad_()
    target = torch.randint(0, 5, (2, 3, 4))
    losses = [library.cross_entropy(z, target, label_smoothing=smoothing) for library in (F, THEIRS)]
    ours, theirs = (torch.autograd.grad(loss, z)[0] for loss in losses)
    torch.testing.assert_close(ours, theirs)
    assert ours.stride() == theirs.stride()


@pytest.mark.parametrize(
    ("difference", "beta", "dtype"),
    [(1e30, 1e9, torch.float32), (1e30, 1e10, torch.bfloat16), (1e200, 1e150, torch.float64), (1e-10, 1e-30, None)],
)
def test_smooth_errors_neither_overflow_nor_vanish(difference: float, beta: float, dtype: torch.dtype | None) -> None:
    assert_as_torch(
        "smooth_l1_loss",
        [torch.tensor([difference, -difference], dtype=dtype), torch.zeros(2, dtype=dtype)],
        beta=beta,
        reduction="none",
    )


def test_a_mean_of_nothing_has_no_second_derivative_of_nan() -> None:
    x, scale = torch.zeros(0, 3, requires_grad=True), torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad(F.mse_loss(x, torch.zeros(0, 3)), x, scale, create_graph=True)
    (second,) = torch.autograd.grad(gradient, scale, torch.zeros(0, 3))
    assert second == 0


@pytest.mark.parametrize("beta", [0.0, 1e-320, 2.0**-150, 2.0**-149, 1e-40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_smooth_l1_loss_of_the_least_betas(dtype: torch.dtype, beta: float) -> None:
    """Also those that the type rounds to 0, where nothing is divided by it."""
    x = torch.tensor([0.0, 1e-3, -1.0], dtype=dtype, requires_grad=True)
    y = torch.zeros(3, dtype=dtype, requires_grad=True)
    lacks.skip_if_unimplemented(lambda: THEIRS.smooth_l1_loss(x, y).backward())
    assert_as_torch("smooth_l1_loss", [x, y], beta=beta, reduction="none")


def test_an_adaptive_softmax_is_linearised_as_torchs() -> None:
    ours, theirs = (namespace.AdaptiveLogSoftmaxWithLoss(4, 6, [2, 4]).double() for namespace in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x, tangent = torch.randn(2, 3, 4, dtype=torch.float64)
    target, found = torch.tensor([0, 3, 5]), []
    for module in (ours, theirs):
        value, derivative = torch.func.linearize(lambda x, module=module: module(x, target).loss, x)
        found.append([value, derivative(tangent)])
    torch.testing.assert_close(*found)
