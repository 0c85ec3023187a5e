"""Pooling against torch for random options, and who wins among equals, NaN and infinities."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

import torchfromscratch.functional as F
from tests import lacks
from tests.subjects import answers, assert_as_torch, assert_equal, outcome, random_tensors, strides
from torchfromscratch.kernels import blocking, layout, spans
from torchfromscratch.kernels import pooling as kernel

BAD = st.sampled_from([0, -1, 7, 2.5, None, "wrong", (), (1,), (0, 1), (1, 1, 1, 1), [1, -1], (1.5, 1), True])
SHAPES = {1: (2, 3, 9), 2: (2, 3, 7, 6), 3: (2, 2, 5, 4, 6)}


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """A pooling's name, input shape and options, most of which fit together."""
    dims = draw(st.integers(1, 3))
    size = [draw(st.integers(1, 5 if dims == 3 else 9)) for _ in range(dims)]
    shape = (*draw(st.sampled_from([[], [1], [2]])), draw(st.integers(1, 3)), *size)

    def each(low: int, high: int) -> Any:
        one = st.integers(low, high)
        return draw(one | st.lists(one, min_size=dims, max_size=dims).map(tuple))

    kind = draw(st.sampled_from(["max", "avg", "adaptive_max", "adaptive_avg"]))
    if kind.startswith("adaptive"):
        options: dict[str, Any] = {"output_size": each(1, 6)}
    else:
        options = {"kernel_size": each(1, 4), "stride": each(1, 3), "padding": each(0, 2)}
        options["ceil_mode"] = draw(st.booleans())
        if kind == "max":
            # No more than the input has positions: taps further apart can lie in the padding on both sides of it,
            # and for such a window torch writes outside of the gradient's memory, which can end the process.
            options["dilation"] = each(1, min(2, *size))
        else:
            options["count_include_pad"] = draw(st.booleans())
            if dims > 1:
                options["divisor_override"] = draw(st.sampled_from([None, 2, 5]))
    if "max" in kind:
        options["return_indices"] = draw(st.booleans())
    return f"{kind}_pool{dims}d", shape, options


@hypothesis.given(calls())
def test_as_torch_for_random_options(call: Any) -> None:
    """Outputs, indices and gradients, or the same type of exception."""
    name, shape, options = call
    assert_as_torch(name, random_tensors(shape), options)


@hypothesis.given(calls(), st.data())
def test_bad_options_raise_as_torchs(call: Any, data: st.DataObject) -> None:
    name, shape, options = call
    option = data.draw(
        st.sampled_from([o for o in options if o not in ("ceil_mode", "count_include_pad", "return_indices")])
    )
    assert_as_torch(name, random_tensors(shape), {**options, option: data.draw(BAD)})


@hypothesis.given(calls(), st.integers(0, 6))
def test_any_number_of_dimensions_as_torch(call: Any, dim: int) -> None:
    name, _, options = call
    assert_as_torch(name, random_tensors((4,) * dim), options)


@hypothesis.given(calls(), st.integers(0, 4))
def test_empty_dimensions_as_torch(call: Any, dim: int) -> None:
    """But for averages of no channels: torch's forward answers what its backward then refuses."""
    name, shape, options = call
    shape = (*shape[:dim], 0, *shape[dim + 1 :])
    hypothesis.assume("adaptive_avg" not in name or dim != len(shape) - int(name[-2]) - 1)
    assert_as_torch(name, random_tensors(shape), options)


@hypothesis.given(calls(), st.permutations(range(5)))
def test_memory_format_as_torchs(call: Any, order: list[int]) -> None:
    """Of outputs, and of gradients but for a mean over everything, where torch's is always contiguous."""
    name, shape, options = call
    dims = int(name[-2])
    hypothesis.assume((dims, len(shape)) != (3, 4))  # torch takes a volume without a batch for a batch of pictures
    channel = len(shape) - dims - 1
    (input,) = random_tensors(shape)
    last = input.detach().movedim(channel, -1).contiguous().movedim(-1, channel)
    order = [dim for dim in order if dim < len(shape)]
    permuted = input.detach().permute(order).contiguous()
    for laid in (last, permuted.permute([order.index(dim) for dim in range(len(shape))])):
        expected = outcome(lambda x: getattr(TF, name)(x, **options), [laid.requires_grad_()])
        hypothesis.assume(not isinstance(expected, type))
        actual = answers(lambda x: getattr(F, name)(x, **options), [laid])
        compared = slice(1 if "avg" in name and expected[0].shape[-dims:].numel() == 1 else None)
        assert [strides(y) for y in actual[compared]] == [strides(y) for y in expected[compared]]


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("g_last", [False, True])
def test_gradients_lie_as_the_input_whatever_comes_back(kernel: int, x_last: bool, g_last: bool) -> None:
    formats = {True: torch.channels_last, False: torch.contiguous_format}
    (x,) = random_tensors((2, 4, 7, 7))
    x = x.detach().contiguous(memory_format=formats[x_last]).requires_grad_()
    found = []
    for functional in (F, TF):
        output = functional.max_pool2d(x, kernel)
        grad_output = torch.ones_like(output).contiguous(memory_format=formats[g_last])
        found += torch.autograd.grad(output, x, grad_output)
    assert strides(found[0]) == strides(found[1])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_window_of_nothing_but_padding_is_refused(dims: int) -> None:
    """It has no winner that a gradient could go to, nor a position."""
    (input,) = random_tensors((1, 1, *[1] * dims))
    with pytest.raises(RuntimeError, match="nothing but padding"):
        getattr(F, f"max_pool{dims}d")(input, 2, padding=1, dilation=2, ceil_mode=True)


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6), (2, 0, 4, 3), (2, 1, 3, 5, 6), (2, 3, 1, 2, 5, 6)], ids=str)
@pytest.mark.parametrize("dims", [2, 3])
def test_mean_of_any_tensor_as_torch(dims: int, shape: tuple[int, ...]) -> None:
    """One output: a mean behind any number of dimensions, of complex numbers too."""
    (real,) = random_tensors(shape)
    complex_numbers = torch.complex(real.detach(), real.detach().flip(-1)).requires_grad_()
    for input in (real, complex_numbers):
        assert_as_torch(f"adaptive_avg_pool{dims}d", [input], {"output_size": 1})


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["max_pool{}d", "adaptive_max_pool{}d"])
@pytest.mark.parametrize(
    "values",
    [
        (0.0, 1.0),
        (-0.0, 0.0),
        (math.nan, 1.0, 2.0),
        (-math.inf,),
        (-math.inf, math.nan, 0.0),
        (math.inf, math.nan, -math.inf, 3.0),
    ],
    ids=str,
)
def test_winners_among_equals(name: str, dims: int, values: tuple[float, ...]) -> None:
    """Of equal elements, and of several NaN, the winner is torch's: in values, indices and gradient."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(values), SHAPES[dims], generator=generator)
    input = torch.tensor(values, dtype=torch.float64)[chosen].requires_grad_()
    size = {"output_size": 3} if name.startswith("adaptive") else {"kernel_size": 3, "stride": 2, "padding": 1}
    assert_as_torch(name.format(dims), [input], {**size, "return_indices": True})


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradient_goes_to_winners_alone(dims: int) -> None:
    (input,) = random_tensors(SHAPES[dims])
    output, positions = getattr(F, f"max_pool{dims}d")(input, 2, return_indices=True)
    (gradient,) = torch.autograd.grad(output.sum(), input)
    flat = input.detach().flatten(2).gather(2, positions.flatten(2))
    assert torch.equal(flat, output.detach().flatten(2))
    assert torch.equal(gradient.flatten(2), torch.zeros_like(gradient).flatten(2).scatter(2, positions.flatten(2), 1.0))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradient_of_two_in_one_place_goes_to_both_and_back_as_torchs(dims: int) -> None:
    """The place keeps the last, dL/dy goes to both, and what comes back in a second backward is their sum."""
    shape, size = (1, 1, *[1] * (dims - 1), 3), (1, 1, *[1] * (dims - 1), 5)
    x, positions = torch.randn(shape, requires_grad=True), torch.tensor([3, 1, 3]).view(shape)
    g, again = torch.randn(size, requires_grad=True), torch.randn(shape)

    def derivatives(library: Any) -> tuple[Tensor, ...]:
        y = getattr(library, f"max_unpool{dims}d")(x, positions, 2, output_size=size[2:])
        (grad,) = torch.autograd.grad(y, x, g, create_graph=True)
        return y, grad, *torch.autograd.grad(grad, g, again)

    assert_equal(derivatives(F), derivatives(TF))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", ["max_pool{}d", "adaptive_max_pool{}d"])
def test_changed_indices_are_noticed(name: str, dims: int) -> None:
    """As in torch: a gradient goes to the winners, and not, without a word, to where indices say that were changed."""
    for library in (F, TF):
        output, positions = getattr(library, name.format(dims))(*random_tensors(SHAPES[dims]), 2, return_indices=True)
        positions += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


@pytest.mark.parametrize(("return_indices", "most"), [(False, 1), (True, 8)])
def test_bytes_kept_for_each_window(return_indices: bool, most: int) -> None:
    """Eight only where positions were asked for, and then no others."""
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        answer = F.max_pool2d(*random_tensors((2, 3, 8, 8)), 2, return_indices=return_indices)
    windows = (answer[0] if return_indices else answer).numel()
    assert sum(tensor.numel() * tensor.element_size() for tensor in kept) == most * windows


@pytest.mark.parametrize(("few", "few_seen"), [(0, 0), (3, 0), (32, 0), (32, kernel.FEW_SEEN)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("max_pool2d", {"kernel_size": (2, 3)}),
        ("max_pool2d", {"kernel_size": (5, 6), "stride": (1, 3), "dilation": (2, 1)}),
        ("max_pool2d", {"kernel_size": (7, 5), "stride": 1, "padding": 2}),
        ("max_pool2d", {"kernel_size": (5, 6), "stride": (2, 6), "padding": (0, 3), "ceil_mode": True}),
        ("max_pool2d", {"kernel_size": (4, 3), "stride": 2, "padding": 1, "dilation": 2}),
        ("adaptive_max_pool2d", {"output_size": (2, 19)}),
        ("adaptive_max_pool2d", {"output_size": (9, 8)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("values", [(0.0, 1.0), (math.nan, 1.0, 2.0), (-math.inf, -math.inf, 0.0)], ids=str)
def test_winners_in_every_way(
    name: str,
    options: dict[str, Any],
    values: tuple[float, ...],
    few: int,
    few_seen: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tap by tap where they are few, in rows or by doubling where not, or all at once: equals, NaN and infinities."""
    monkeypatch.setattr(kernel, "MOST_TAPS", few)
    monkeypatch.setattr(kernel, "FEW_SEEN", few_seen)
    chosen = torch.randint(len(values), (2, 3, 11, 12), generator=torch.Generator().manual_seed(0))
    input = torch.tensor(values, dtype=torch.float64)[chosen].requires_grad_()
    assert_as_torch(name, [input], {**options, "return_indices": True})


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d"])
def test_other_types_as_torch(name: str, dtype: torch.dtype) -> None:
    input = (torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6) % 41).to(dtype)
    size = {"output_size": 2} if name.startswith("adaptive") else {"kernel_size": 2}
    assert_as_torch(name, [input], size)


@pytest.mark.parametrize("p", [2.0, 1.5, pytest.param(math.inf, marks=lacks.marked(lacks.norms_of_infinite_power()))])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_power_averages_of_integers_as_torch(dtype: torch.dtype, p: float) -> None:
    input = (torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6) % 41).to(dtype)
    assert_as_torch("lp_pool2d", [input], {"norm_type": p, "kernel_size": 2})


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64], ids=str)
def test_numbers_of_many_taps(dtype: torch.dtype, nan: bool) -> None:
    """More than a bfloat16 can count to, and the winners among the last of them."""
    x = torch.arange(3 * 2 * 21 * 22).view(3, 2, 21, 22).remainder(200).to(dtype)
    if nan and dtype.is_floating_point:
        x[1, 1, 19, 18] = math.nan
    for padding in (0, 9):
        actual = F.max_pool2d(x, 20, stride=1, padding=padding, return_indices=True)
        expected = TF.max_pool2d(x, 20, stride=1, padding=padding, return_indices=True)
        assert_equal(list(actual), list(expected))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "ceil_mode"), [(1, 0, False), (2, 1, False), (3, 1, True)])
def test_derivatives(dims: int, stride: int, padding: int, ceil_mode: bool, device: str) -> None:
    tensors = [tensor.detach().to(device).requires_grad_() for tensor in random_tensors(SHAPES[dims])]
    for kind in ("max", "avg"):
        function = getattr(F, f"{kind}_pool{dims}d")
        call = lambda x, function=function: function(x, 3, stride, padding, ceil_mode=ceil_mode)  # noqa: E731
        assert gradcheck(call, tensors, fast_mode=True, check_forward_ad=True)
        assert gradgradcheck(call, tensors, fast_mode=True)


def test_average_is_its_transposes_adjoint() -> None:
    """⟨g, average(x)⟩ = ⟨x, dL/dx for dL/dy = g⟩."""
    (x,) = random_tensors((2, 3, 7, 6))
    y = F.adaptive_avg_pool2d(x, (3, 4))
    (g,) = random_tensors(tuple(y.shape))
    (spread,) = torch.autograd.grad(y, x, g)
    assert_equal([(x * spread).sum()], [(g * y).sum()])


@pytest.mark.parametrize("options", [{"kernel_size": 2, "stride": 2}, {"kernel_size": 2, "stride": 3, "dilation": 2}])
def test_every_element_of_the_gradient_is_written(options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no window looks: whatever was in the memory that the gradient takes."""

    def unwritten(shape: Any, channels_last: bool, like: Tensor) -> Tensor:
        return layout.empty(shape, channels_last, like).fill_(torch.nan)

    monkeypatch.setattr(kernel, "empty", unwritten)
    assert_as_torch("max_pool2d", random_tensors((2, 3, 6, 6)), options)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
@pytest.mark.parametrize("options", [(2,), (3, 2, 1), (3, 1, 0, 2), (3, 3)], ids=str)
@pytest.mark.parametrize("few_seen", [0, kernel.FEW_SEEN])
def test_a_batch_in_parts(
    few_seen: int, options: tuple[int, ...], memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the last is shorter, another holds NaN, all hold equals: each computes in the memory of the first."""
    monkeypatch.setattr(kernel, "FEW_SEEN", few_seen)
    x = torch.randint(0, 3, (5, 3, 8, 9), generator=torch.Generator().manual_seed(0)).double()
    x[3, 1, 4, 4] = math.nan
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    monkeypatch.setattr(blocking, "BATCH_BLOCK_BYTES", 2 * x[0].numel() * x.element_size())
    parts = blocking.batch_blocks(x, x[0].numel())
    assert [part.stop - part.start for part in parts] == [2, 2, 1]
    results = [function(x, *options, return_indices=True) for function in (F.max_pool2d, TF.max_pool2d)]
    assert_equal(*results)
    assert_equal(*[torch.autograd.grad(y.sum(), x) for y, _ in results])


@pytest.mark.parametrize("few", [0, spans.FEW])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("avg_pool2d", {"kernel_size": 5, "stride": 1, "padding": 2, "count_include_pad": False}),
        ("avg_pool2d", {"kernel_size": 6, "stride": (2, 4), "padding": (3, 0), "ceil_mode": True}),
        ("avg_pool2d", {"kernel_size": (2, 3), "stride": (5, 3)}),
        ("adaptive_avg_pool2d", {"output_size": (3, 12)}),
        ("adaptive_avg_pool2d", {"output_size": (14, 4)}),
    ],
)
def test_averages_in_every_way(name: str, options: dict[str, Any], few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Position by position of the windows where they are few, by sums of sums or an index where not."""
    monkeypatch.setattr(spans, "FEW", few)
    assert_as_torch(name, random_tensors((2, 3, 7, 8)), options)


def test_recorded_operations_know_nan() -> None:
    """What is traced of an input without NaN is right for one with NaN, though eager code looks for them first."""
    x = random_tensors((2, 3, 6, 6))[0].detach()
    with_nan = x.clone()
    with_nan[1, 2, 3, 2] = math.nan

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, 1)

    expected = TF.max_pool2d(with_nan, 3, 2, 1)
    assert_equal([torch.jit.trace(pool, x)(with_nan)], [expected])
    assert_equal([make_fx(pool)(x)(with_nan)], [expected])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert pool(mode.from_tensor(x)).shape == expected.shape


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adaptive_max_pool2d", {"output_size": 3}),
        ("adaptive_max_pool2d", {"output_size": (5, 1)}),
        ("adaptive_avg_pool2d", {"output_size": (3, 5)}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("avg_pool2d", {"kernel_size": 7, "stride": 2, "padding": 3}),
        ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("max_pool2d", {"kernel_size": 2, "ceil_mode": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(4, 3, 13, 20), (1, 3, 6, 9), (2, 3, 16, 5)], ids=str)
def test_traced_at_one_size_run_at_another(name: str, options: dict[str, Any], size: tuple[int, ...]) -> None:
    """Values, positions and gradients: no decision that follows from a size is recorded."""
    if "max" in name:
        options = {**options, "return_indices": True}
    traced = torch.jit.trace(lambda x: getattr(F, name)(x, **options), random_tensors((2, 3, 8, 9)))
    inputs = random_tensors(size)
    assert_equal(answers(traced, inputs), answers(lambda x: getattr(TF, name)(x, **options), inputs))
