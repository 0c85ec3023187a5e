"""Normalisation: running statistics, accuracy far from zero, memory format, and the same errors as torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

import torchfromscratch.functional as F
from tests import lacks
from tests.subjects import assert_equal, assert_same_outcome, outcome, pull_back, random_tensors
from torchfromscratch import nn
from torchfromscratch.kernels import blocking

LAYERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "batch_norm": lambda F, x: F.batch_norm(x, None, None, training=True),
    "batch_norm evaluation": lambda F, x: F.batch_norm(x, *torch.ones(2, x.shape[1]).to(x)),
    "instance_norm": lambda F, x: F.instance_norm(x),
    "layer_norm": lambda F, x: F.layer_norm(x, x.shape[1:]),
    "rms_norm": lambda F, x: F.rms_norm(x, x.shape[1:]),
    "group_norm": lambda F, x: F.group_norm(x, 2),
}


@st.composite
def modules(draw: st.DrawFn) -> tuple[str, dict[str, Any], list[int]]:
    """A module of channels, its arguments and a size that it takes."""
    kind = draw(st.sampled_from(["BatchNorm", "InstanceNorm"]))
    dims = draw(st.integers(1, 3))
    options = {
        "eps": draw(st.sampled_from([1e-5, 1e-2])),
        "momentum": draw(st.sampled_from([0.1, 0.7] + [None] * (kind == "BatchNorm"))),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
        "num_features": draw(st.integers(1, 4)),
    }
    size = [draw(st.integers(2, 3)), options["num_features"], *draw(st.tuples(*[st.integers(2, 4)] * dims))]
    return f"{kind}{dims}d", options, size


@settings(max_examples=25, deadline=None)
@given(modules(), st.integers(0, 1000))
def test_modules_follow_torch_through_training_and_evaluation(case: tuple, seed: int) -> None:
    name, options, size = case
    ours, theirs = (getattr(namespace, name)(**options, dtype=torch.float64) for namespace in (nn, torch.nn))
    generator = torch.Generator().manual_seed(seed)
    for training in (True, True, True, False):
        input = torch.randn(size, generator=generator, dtype=torch.float64) * 3 + 1
        results = []
        for module in (ours.train(training), theirs.train(training)):
            x = input.clone().requires_grad_()
            output = module(x)
            gradients = torch.autograd.grad(output.pow(3).sum(), [x, *module.parameters()])
            results.append((output, *gradients, dict(module.state_dict())))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("momentum", [0.1, 1.0, -1.0, 0.0])
@pytest.mark.parametrize("size", [(4, 3), (2, 3, 5), (0, 3), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_move_as_torchs(name: str, size: tuple, momentum: float) -> None:
    if name == "instance_norm" and len(size) < 3:
        size = (*size, 2) if size[0] else (2, 3, 0)
    results = []
    for namespace in (F, torch.nn.functional):
        mean, variance = torch.full((3,), 2.0), torch.full((3,), 5.0)
        input = torch.arange(1.0, 1 + torch.Size(size).numel()).view(size)
        output = getattr(namespace, name)(input, mean, variance, None, None, True, momentum)
        results.append((output, mean, variance))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("statistics", [torch.float32, torch.bfloat16], ids=str)
def test_narrow_batches_update_running_statistics_of_either_type(statistics: torch.dtype) -> None:
    results = []
    for namespace in (F, torch.nn.functional):
        mean, variance = torch.zeros(2, 3, dtype=statistics)
        input = torch.linspace(-1, 3, 24).view(8, 3).bfloat16()
        namespace.batch_norm(input, mean, variance, training=True)
        results.append((mean, variance))
    torch.testing.assert_close(*results, rtol=2 * torch.finfo(statistics).eps, atol=0)


@pytest.mark.parametrize("mean", [0.0, 30.0, 1e4], ids=str)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "batch_norm evaluation"])
def test_far_from_zero_the_error_is_of_torchs_order(layer: str, mean: float) -> None:
    input = torch.randn(8, 4, 9, 11, generator=torch.Generator().manual_seed(0)) + mean
    errors = []
    for namespace in (F, torch.nn.functional):
        exact = input.double().requires_grad_()
        given_ = input.clone().requires_grad_()
        answers = []
        for x in (given_, exact):
            output = LAYERS[layer](namespace, x)
            answers.append((output, *torch.autograd.grad(output.pow(3).sum(), x)))
        errors.append([(a - b).abs().max().item() for a, b in zip(*answers, strict=True)])
        scales = [b.abs().max().item() for b in answers[1]]
    for ours, theirs, scale in zip(*errors, scales, strict=True):
        assert ours <= 2 * theirs + torch.finfo(torch.float32).eps * scale


def test_gradients_that_nearly_vanish_are_accurate() -> None:
    """Of two elements that share their statistics, dL/dx is what the variance's ε leaves of ρ·dL/dy.

    Whole numbers have exact means and deviations, so that what is measured are the roundings behind them.
    """
    generator = torch.Generator().manual_seed(0)
    input, grad_output = (torch.randint(-99, 99, (200, 2), generator=generator).float() for _ in range(2))
    input[:, 1] = input[:, 0] + 8
    rho = 1 / 4

    def gradient(functional: Any, dtype: torch.dtype) -> Tensor:
        x = input.to(dtype, copy=True).requires_grad_()
        return torch.autograd.grad(functional.layer_norm(x, (2,)), x, grad_output.to(dtype))[0]

    error = gradient(F, torch.float32) - gradient(torch.nn.functional, torch.float64)
    assert error.abs().mean() < torch.finfo(torch.float32).eps / 2 * rho * grad_output.abs().mean()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: x,
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.to(memory_format=torch.channels_last)[:, :, ::2],
        lambda x: x.permute(0, 1, 3, 2),
        lambda x: x[:, :1].expand(-1, 4, -1, -1),
    ],
    ids=["contiguous", "channels last", "channels last with gaps", "transposed", "expanded"],
)
def test_output_lies_as_torchs(layer: str, lay_out: Callable[[Tensor], Tensor]) -> None:
    if layer == "rms_norm" and not lacks.has_kernel("_fused_rms_norm"):
        pytest.skip("torch has no kernel for rms_norm, whose output lies as arithmetic leaves it")
    input = lay_out(torch.randn(2, 4, 6, 5))
    ours, theirs = (LAYERS[layer](namespace, input) for namespace in (F, torch.nn.functional))
    assert ours.stride() == theirs.stride()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "build",
    [
        lambda nn: nn.BatchNorm2d(4),
        lambda nn: nn.InstanceNorm2d(4, affine=True),
        lambda nn: nn.LayerNorm((3, 5)),
        lambda nn: nn.GroupNorm(2, 4),
        lambda nn: nn.RMSNorm(5),
    ],
    ids=["BatchNorm2d", "InstanceNorm2d", "LayerNorm", "GroupNorm", "RMSNorm"],
)
def test_the_batch_in_uneven_parts_gives_the_same(
    build: Callable, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    input = torch.randn(8, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("torchfromscratch.kernels.blocking.BATCH_BLOCK_BYTES", 3 * 8 * input[0].numel())
    assert len(blocking.batch_blocks(input, input[0].numel())) == 3
    results = []
    for namespace in (nn, torch.nn):
        module = build(namespace).double()
        x = input.to(memory_format=memory_format).requires_grad_()
        inputs = [x, *module.parameters()]
        output = module(x)
        gradients = torch.autograd.grad(output.pow(3).sum(), inputs, create_graph=True)
        penalty = torch.stack([gradient.pow(2).sum() for gradient in gradients]).sum()
        results.append((output, *gradients, *torch.autograd.grad(penalty, inputs[:2])))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("size", [(5,), (4,), (4, 2)], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_a_single_sample_needs_no_batch(
    name: str, threads: int, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    results = []
    for namespace in (F, torch.nn.functional):
        numbers = torch.linspace(-1, 2, math.prod(size), dtype=torch.float64).view(size)
        tensors = [numbers**k for k in range(1, 4)]
        x, weight, bias = [tensor.requires_grad_() for tensor in tensors]
        inputs = [x, weight, bias] if name == "layer_norm" else [x, weight]
        output = getattr(namespace, name)(x, size, *inputs[1:])
        results.append((output, *torch.autograd.grad(output.pow(3).sum(), inputs)))
    torch.testing.assert_close(*results)


def test_a_frozen_narrow_input_leaves_the_weights_gradient_its_precision() -> None:
    """It is of the weight's type, float32, though the input that it is computed from is bfloat16."""
    x, weight, upstream = torch.randn(64, 5).bfloat16(), torch.ones(5), torch.randn(64, 5).bfloat16()

    def gradient(namespace: Any, dtype: torch.dtype) -> torch.Tensor:
        w = weight.to(dtype).requires_grad_()
        input, grad_output = (x, upstream) if namespace is F else (x.to(dtype), upstream.to(dtype))
        return torch.autograd.grad(namespace.layer_norm(input, (5,), w), w, grad_output)[0]

    truth = gradient(torch.nn.functional, torch.float64)
    torch.testing.assert_close(gradient(F, torch.float32), truth.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_keeps_at_most_one_tensor_of_the_inputs_size_for_the_backward_pass(layer: str) -> None:
    input = torch.randn(8, 4, 5, 6, requires_grad=True)
    saved: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.update({tensor.data_ptr(): tensor.numel()}) or tensor, lambda packed: packed
    ):
        LAYERS[layer](F, input)
    assert sum(count == input.numel() for count in saved.values()) <= 1


@pytest.mark.parametrize("layer", LAYERS)
def test_a_constant_input_gives_zeros_or_ones_and_finite_gradients(layer: str) -> None:
    input = torch.full((3, 4, 5, 6), 7.0, requires_grad=True)
    ours, theirs = (LAYERS[layer](namespace, input) for namespace in (F, torch.nn.functional))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)  # torch's is off zero by 3e-5
    (gradient,) = torch.autograd.grad(ours.square().sum(), input)
    assert gradient.isfinite().all()


def ones(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(size, dtype=dtype)


HALF, INTEGERS = torch.float16, torch.int64


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("batch_norm", (ones(3), ones(3), ones(3)), {"training": True}),
        ("batch_norm", (ones(1, 3), None, None), {"training": True}),
        ("batch_norm", (ones(1, 3, 1), None, None), {"training": True}),
        ("batch_norm", (ones(2, 3), None, None), {}),
        ("batch_norm", (ones(2, 3), ones(3), None), {}),
        ("batch_norm", (ones(2, 3), ones(4), ones(3)), {}),
        ("batch_norm", (ones(2, 3), ones(3), ones(4)), {"training": True}),
        ("batch_norm", (ones(2, 3), ones(3), ones(3), ones(4)), {}),
        ("batch_norm", (ones(2, 3), ones(3), ones(3), ones(3), ones(4)), {}),
        ("batch_norm", (ones(2, 3, dtype=INTEGERS), ones(3), ones(3)), {}),
        ("batch_norm", (ones(2, 3), None, None, ones(3, dtype=HALF)), {"training": True}),
        ("instance_norm", (ones(3),), {}),
        ("instance_norm", (ones(2, 3),), {}),
        ("instance_norm", (ones(2, 3, 1),), {}),
        ("instance_norm", (ones(2, 3, 4), None, None), {"use_input_stats": False}),
        ("instance_norm", (ones(2, 3, 4), ones(3), ones(3), ones(4)), {}),
        ("layer_norm", (ones(2, 3), ()), {}),
        ("layer_norm", (ones(2, 3), (4,)), {}),
        ("layer_norm", (ones(3), (2, 3)), {}),
        ("layer_norm", (ones(2, 3), 3), {}),
        ("layer_norm", (ones(2, 3), (3,), ones(4)), {}),
        ("layer_norm", (ones(2, 3), (3,), ones(3), ones(4)), {}),
        ("layer_norm", (ones(2, 3, dtype=INTEGERS), (3,)), {}),
        ("layer_norm", (ones(2, 3), (3,), ones(3, dtype=HALF)), {}),
        ("rms_norm", (ones(2, 3), ()), {}),
        ("rms_norm", (ones(2, 3), (4,)), {}),
        ("rms_norm", (ones(2, 3), (3,), ones(4)), {}),
        ("rms_norm", (ones(2, 3, dtype=INTEGERS), (3,)), {}),
        ("group_norm", (ones(3), 1), {}),
        ("group_norm", (ones(2, 4), 3), {}),
        ("group_norm", (ones(2, 4), 0), {}),
        ("group_norm", (ones(2, 4), -1), {}),
        ("group_norm", (ones(1, 4), 4), {}),
        ("group_norm", (ones(2, 4), 2, ones(2)), {}),
        ("group_norm", (ones(2, 4), 2, ones(4, 1)), {}),
        ("group_norm", (ones(2, 4, dtype=INTEGERS), 2), {}),
    ],
    ids=str,
)
def test_raises_what_torch_raises(name: str, args: tuple, options: dict) -> None:
    raisable = (ValueError, RuntimeError, NotImplementedError, TypeError, ZeroDivisionError)
    with pytest.raises(raisable) as theirs:
        getattr(torch.nn.functional, name)(*args, **options)
    with pytest.raises(theirs.type):
        getattr(F, name)(*args, **options)


@pytest.mark.parametrize(
    ("name", "args", "options", "error"),
    [
        ("batch_norm", (ones(2, 3), ones(3), None), {"training": True}, ValueError),
        ("batch_norm", (ones(2, 3), ones(3), ones(3)), {"eps": -1}, ValueError),
        ("batch_norm", (ones(2, 3), ones(3), ones(3)), {"training": True, "eps": 0}, ValueError),
        ("instance_norm", (ones(2, 3, 4), ones(3), None), {}, ValueError),
        ("rms_norm", (ones(3), (2, 3)), {}, ValueError),
        ("group_norm", (ones(2, 4, 0), 2), {}, RuntimeError),
        ("group_norm", (ones(2, 0), 2), {}, RuntimeError),
    ],
    ids=str,
)
def test_raises_what_newer_torch_raises(name: str, args: tuple, options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        getattr(F, name)(*args, **options)
    lacks.assert_raises(error, lambda: getattr(torch.nn.functional, name)(*args, **options))


@pytest.mark.parametrize(
    ("name", "size"),
    [("BatchNorm1d", (2, 4, 3, 3)), ("BatchNorm2d", (2, 4)), ("BatchNorm3d", (2, 4)), ("InstanceNorm2d", (4, 4))],
)
def test_modules_refuse_other_numbers_of_dimensions(name: str, size: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        getattr(nn, name)(4)(torch.ones(size))


def test_mapping_over_models_equals_one_model_after_the_other() -> None:
    input = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    weights, biases = torch.randn(2, 3, 4, dtype=torch.float64)
    norm = lambda w, b: F.batch_norm(input, None, None, w, b, training=True)  # noqa: E731
    for dims in ((0, 0), (0, None), (None, 0)):
        w, b = (tensor if dim == 0 else tensor[0] for tensor, dim in zip((weights, biases), dims, strict=True))
        mapped = torch.func.vmap(norm, dims)(w, b)
        one_by_one = [norm(w[i] if dims[0] == 0 else w, b[i] if dims[1] == 0 else b) for i in range(3)]
        torch.testing.assert_close(mapped, torch.stack(one_by_one))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [0, 1, 3, 12])
@pytest.mark.parametrize("chunk_bytes", [1, blocking.BATCH_BLOCK_BYTES])
def test_batch_norm_of_pictures_parted_among_cores(
    threads: int, batch: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(blocking, "BATCH_BLOCK_BYTES", chunk_bytes)
    tensors = random_tensors((batch, 4, 6, 5), (4,), (4,))
    ours = outcome(lambda x, *affine: F.batch_norm(x, None, None, *affine, training=True), tensors)
    theirs = outcome(lambda x, *affine: torch.nn.functional.batch_norm(x, None, None, *affine, training=True), tensors)
    assert_same_outcome(ours, theirs)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "rms_norm"])  # torch's lies as dL/dy does
@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("g_last", [False, True])
def test_gradient_lies_as_torchs(layer: str, x_last: bool, g_last: bool) -> None:
    """As the input does, whether dL/dy is so or, as it is behind a view, is not."""
    formats = {True: torch.channels_last, False: torch.contiguous_format}
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=formats[x_last]).requires_grad_()
    g = torch.randn(2, 4, 6, 5).contiguous(memory_format=formats[g_last])
    ours, theirs = (torch.autograd.grad(LAYERS[layer](namespace, x), x, g)[0] for namespace in (F, torch.nn.functional))
    assert ours.stride() == theirs.stride()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_statistics_are_rounded_once(dtype: torch.dtype) -> None:
    """In evaluation, with parameters and statistics in the narrow type: as near to the truth as torch."""
    generator = torch.Generator().manual_seed(0)
    x, *others = (torch.rand(shape, generator=generator).to(dtype) * 9 for shape in [(64, 8), *[(8,)] * 4])
    truth = torch.nn.functional.batch_norm(x.double(), *(tensor.double() for tensor in others))
    ours, theirs = (
        (library.batch_norm(x, *others).double() - truth).abs().max() for library in (F, torch.nn.functional)
    )
    assert ours <= theirs


STATISTICS = ["running_mean", "running_var"]


@pytest.mark.parametrize("differentiated", [0, 1], ids=STATISTICS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_that_require_gradients_are_refused(name: str, training: bool, differentiated: int) -> None:
    """Unless no gradient is recorded, as in torch; ignored, their gradients would be wrong."""
    statistics = [torch.zeros(3), torch.ones(3)]
    statistics[differentiated].requires_grad_()
    given = (torch.randn(4, 3, 5), *statistics, None, None, training)
    for library in (F, torch.nn.functional):
        argument = STATISTICS[differentiated]
        with pytest.raises(RuntimeError, match=f"not differentiable with respect to argument '{argument}'"):
            getattr(library, name)(*given)
        with torch.no_grad():
            getattr(library, name)(*given)


@pytest.mark.parametrize("differentiated", [0, 1], ids=STATISTICS)
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_that_carry_tangents_are_refused(name: str, differentiated: int) -> None:
    """Where the output depends on them: in training it does not."""
    with forward_ad.dual_level():
        statistics = [torch.zeros(3), torch.ones(3)]
        statistics[differentiated] = forward_ad.make_dual(statistics[differentiated], torch.ones(3))
        given = (forward_ad.make_dual(torch.randn(4, 3, 5), torch.randn(4, 3, 5)), *statistics, None, None)
        for library in (F, torch.nn.functional):
            with pytest.raises(RuntimeError, match="cannot have forward grad defined"):
                getattr(library, name)(*given, False)
            getattr(library, name)(*given, True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("of_statistics", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_instance_norm_takes_statistics_of_another_type(
    dtype: torch.dtype, of_statistics: torch.dtype, training: bool
) -> None:
    """As torch's does; batch norm's are of the input's type, or float32 beside a narrower one."""

    def answer(library: Any) -> list[Tensor]:
        x, weight, bias = random_tensors((3, 4, 5), (4,), (4,), dtype=dtype)
        mean, variance = torch.full((4,), 0.25, dtype=of_statistics), torch.full((4,), 1.5, dtype=of_statistics)
        output = library.instance_norm(x, mean, variance, weight, bias, training)
        return [output, *torch.autograd.grad(output.sum(), [x, weight, bias]), mean, variance]

    ours = answer(F)
    try:
        theirs = answer(torch.nn.functional)
    except RuntimeError as error:
        pytest.skip(f"an older torch: {error}")
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in theirs]
    for our, their in zip(ours, theirs, strict=True):
        allowed = 4 * max(torch.finfo(dtype).eps, torch.finfo(of_statistics).eps)
        torch.testing.assert_close(our, their, rtol=allowed, atol=4 * allowed)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_cross_map_is_local_response_norm_of_an_odd_window(size: int, channels: int) -> None:
    """And torch's own is not: docs/torch.md."""
    (x,) = random_tensors((2, channels, 2, 3))
    module = nn.CrossMapLRN2d(size, 0.7, 0.5, 2.0)
    found = [module(x), torch.nn.functional.local_response_norm(x, size, 0.7, 0.5, 2.0)]
    assert_equal(*[pull_back(y, [x]) for y in found])
    assert torch.autograd.gradcheck(module, x)


def test_cross_map_of_an_even_window_reaches_as_far_on_both_sides() -> None:
    (x,) = random_tensors((1, 3, 1, 1))
    y = nn.CrossMapLRN2d(4, 0.7, 0.5, 2.0)(x)
    sums = x.square().sum(1, keepdim=True) - torch.stack([x[:, 2], 0 * x[:, 1], x[:, 0]], 1).square()
    torch.testing.assert_close(y, x / (2.0 + 0.7 / 4 * sums).sqrt())
    with pytest.raises(ValueError, match="4D"):
        nn.CrossMapLRN2d(4)(x[0])
