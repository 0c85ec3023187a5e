"""Convolution against its definition, against itself turned round, and against torch for random options."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import torchfromscratch
import torchfromscratch.functional as F
from tests.subjects import answers, assert_as_torch, assert_equal, assert_same_outcome, outcome, random_tensors, strides
from torchfromscratch import nn
from torchfromscratch.autograd.convolution import correlation, full_convolution, weight_gradient
from torchfromscratch.kernels.convolution.rotation import rotate180
from torchfromscratch.kernels.windows import Windows

GRID = [
    (stride, padding, dilation, groups)
    for stride in (1, 2, (2, 3))
    for padding in (0, 1, (2, 1))
    for dilation in (1, (1, 2))
    for groups in (1, 2)
]


def naive_correlation(input: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """y[n, o, i, j] = Σ w[o, c, k, l] · x[n, c, i·s + k − p, j·s + l − p], an element at a time."""
    (batch, channels, height, width), (filters, _, rows, columns) = input.shape, weight.shape
    out_height = (height + 2 * padding - rows) // stride + 1
    out_width = (width + 2 * padding - columns) // stride + 1
    output = input.new_zeros(batch, filters, out_height, out_width)
    for n, o, i, j in itertools.product(range(batch), range(filters), range(out_height), range(out_width)):
        for c, k, l in itertools.product(range(channels), range(rows), range(columns)):  # noqa: E741
            at, to = i * stride + k - padding, j * stride + l - padding
            if 0 <= at < height and 0 <= to < width:
                output[n, o, i, j] += weight[o, c, k, l] * input[n, c, at, to]
    return output


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_forward_is_the_definition(stride: int, padding: int) -> None:
    input, weight = (tensor.detach() for tensor in random_tensors((2, 2, 5, 6), (3, 2, 3, 2)))
    assert_equal([F.conv2d(input, weight, None, stride, padding)], [naive_correlation(input, weight, stride, padding)])


def test_gradient_of_the_input_is_a_full_convolution() -> None:
    """dL/dx: dL/dy, padded by k − 1 all around, correlated with the kernel rotated by 180°, written out with loops."""
    input, weight = random_tensors((2, 2, 5, 6), (3, 2, 3, 3))
    output = F.conv2d(input, weight)
    (grad_output,) = random_tensors(tuple(output.shape))
    (grad_input,) = torch.autograd.grad(output, input, grad_output)
    rotated = weight.detach().clone()
    for k, l in itertools.product(range(3), range(3)):  # noqa: E741
        rotated[:, :, k, l] = weight[:, :, 2 - k, 2 - l]
    expected = naive_correlation(grad_output.detach(), rotated.transpose(0, 1), padding=2)
    assert_equal([grad_input], [expected])
    assert_equal([rotate180(weight)], [rotated.transpose(0, 1)])


def test_gradient_of_the_weight_is_a_correlation() -> None:
    """dL/dw: x correlated with dL/dy, the batch taking the place of the channels."""
    input, weight = random_tensors((2, 2, 5, 6), (3, 2, 3, 3))
    output = F.conv2d(input, weight)
    (grad_output,) = random_tensors(tuple(output.shape))
    (grad_weight,) = torch.autograd.grad(output, weight, grad_output)
    expected = naive_correlation(input.detach().transpose(0, 1), grad_output.detach().transpose(0, 1)).transpose(0, 1)
    assert_equal([grad_weight], [expected])


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), GRID)
def test_one_trilinear_form(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    """⟨g, correlation(x, w)⟩ = ⟨x, full_convolution(g, w)⟩ = ⟨w, weight_gradient(x, g)⟩."""
    pair: Callable[[Any], tuple[int, int]] = lambda value: value if isinstance(value, tuple) else (value, value)  # noqa: E731
    windows = Windows((3, 2), pair(stride), pair(padding), pair(dilation), groups)
    x, w = random_tensors((2, 4, 7, 8), (6, 4 // groups, 3, 2))
    y = correlation(x, w, None, windows, None)
    (g,) = random_tensors(tuple(y.shape))
    form = (g * y).sum()
    assert_equal([(x * full_convolution(g, w, None, windows, x.shape[2:], None)).sum()], [form])
    assert_equal([(w * weight_gradient(x, g, windows, None)).sum()], [form])


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), GRID)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_derivatives(name: str, stride: Any, padding: Any, dilation: Any, groups: int, device: str) -> None:
    weight = (6, 4 // groups, 3, 2) if name == "conv2d" else (4, 6 // groups, 3, 2)
    tensors = [t.detach().to(device).requires_grad_() for t in random_tensors((2, 4, 7, 5), weight, (6,))]

    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return getattr(F, name)(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)

    assert gradcheck(function, tensors, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(function, tensors, fast_mode=True)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]], dict[str, Any]]:
    """A convolution's name, shapes and options, most of which fit together."""
    dims, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    groups, per_group_in, per_group_out = (draw(st.integers(1, 2)) for _ in range(3))
    largest = 5 if dims == 3 else 8

    def each(low: int, high: int) -> Any:
        one = st.integers(low, high)
        return draw(one | st.lists(one, min_size=dims, max_size=dims).map(tuple))

    options: dict[str, Any] = {"stride": each(1, 3), "padding": each(0, 2), "dilation": each(1, 2), "groups": groups}
    if transposed:
        options["output_padding"] = each(0, 2)
    elif draw(st.booleans()):
        options["padding"] = draw(st.sampled_from(["same", "valid"]))
        options["stride"] = 1
    channels = [groups * per_group_in, per_group_out] if transposed else [groups * per_group_out, per_group_in]
    kernel = [draw(st.integers(1, 3)) for _ in range(dims)]
    size = [draw(st.integers(1, largest)) for _ in range(dims)]
    batch = draw(st.sampled_from([[], [1], [2]]))
    shapes = [(*batch, groups * per_group_in, *size), (*channels, *kernel)]
    if draw(st.booleans()):
        shapes.append((groups * per_group_out,))
    return f"conv{'_transpose' * transposed}{dims}d", shapes, options


@hypothesis.given(calls())
def test_as_torch_for_random_options(call: tuple[str, list[tuple[int, ...]], dict[str, Any]]) -> None:
    """Outputs and gradients, or the same type of exception."""
    name, shapes, options = call
    assert_as_torch(name, random_tensors(*shapes), options)


@hypothesis.given(calls(), st.booleans(), st.booleans())
def test_memory_format_as_torchs(call: Any, input_last: bool, weight_last: bool) -> None:
    name, shapes, options = call
    hypothesis.assume(len(shapes[0]) == len(shapes[1]) == 4)
    input, weight, *bias = random_tensors(*shapes, dtype=torch.float32)
    formats = {True: torch.channels_last, False: torch.contiguous_format}
    tensors = [
        input.contiguous(memory_format=formats[input_last]),
        weight.contiguous(memory_format=formats[weight_last]),
    ]
    try:
        expected = getattr(TF, name)(*tensors, *bias, **options)
    except (RuntimeError, ValueError):
        return
    assert strides(getattr(F, name)(*tensors, *bias, **options)) == strides(expected)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("last", [*itertools.product([False, True], repeat=3)], ids=str)
def test_gradients_lie_as_the_operands_whatever_comes_back(name: str, groups: int, last: tuple[bool, ...]) -> None:
    """As in torch, channels last where an operand is, whether dL/dy is so or, as behind a Flatten, is not."""
    tensors = random_tensors((2, 4, 6, 6), (4, 4 // groups, 3, 3), dtype=torch.float32)
    formats = [torch.channels_last if is_last else torch.contiguous_format for is_last in last]
    x, w = (t.detach().contiguous(memory_format=f).requires_grad_() for t, f in zip(tensors, formats, strict=False))
    found = []
    for functional in (F, TF):
        output = getattr(functional, name)(x, w, groups=groups)
        grad_output = torch.ones(output.shape).contiguous(memory_format=formats[2])
        found.append([output, *torch.autograd.grad(output, [x, w], grad_output)])
    assert [strides(ours) for ours in found[0]] == [strides(theirs) for theirs in found[1]]


@pytest.mark.parametrize(("groups", "algorithm"), [(1, "winograd"), (1, "im2col"), (2, None)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_gradient_is_lost_in_the_padding(groups: int, algorithm: str | None, value: float) -> None:
    """A window that sees nothing but padding has no share in dL/dx, but a NaN behind it belongs into dL/dw."""
    x, w = random_tensors((1, 2, 5, 5), (2, 2 // groups, 3, 3))
    theirs = TF.conv2d(x, w, padding=4, groups=groups)
    with torchfromscratch.algorithm(algorithm) if algorithm else contextlib.nullcontext():
        ours = F.conv2d(x, w, padding=4, groups=groups)
    grad_output = torch.ones_like(ours)
    grad_output[0, 0, 0, 0] = value
    assert_equal([torch.autograd.grad(ours, [x, w], grad_output)[1]], [torch.autograd.grad(theirs, w, grad_output)[0]])


@pytest.mark.parametrize("mapped", [m for m in itertools.product([False, True], repeat=3) if any(m)], ids=str)
@pytest.mark.parametrize("algorithm", ["winograd", "im2col"])
def test_gradients_mapped_over_any_operand(mapped: tuple[bool, ...], algorithm: str) -> None:
    """Also with an algorithm that is not made for the groups that mapped weights become."""
    shapes = (2, 2, 6, 6), (2, 2, 3, 3), (2, 2, 4, 4)
    given = [t.detach() for t in random_tensors(*[(3,) * of + shape for of, shape in zip(mapped, shapes, strict=True)])]

    def pull_back(function: Any) -> Any:
        def gradients(x: Tensor, w: Tensor, g: Tensor) -> Any:
            return torch.func.vjp(function, x, w)[1](g)

        return torch.func.vmap(gradients, tuple(0 if of else None for of in mapped))(*given)

    with torchfromscratch.algorithm(algorithm):
        actual = pull_back(lambda x, w: F.conv2d(x, w))
    assert_equal(actual, pull_back(lambda x, w: TF.conv2d(x, w)))


def test_what_does_not_depend_on_an_infinity_stays_finite() -> None:
    """dL/dx holds no x, so its own gradients are those of the weight and dL/dy alone."""
    x, w, g = random_tensors((1, 2, 5, 5), (2, 2, 3, 3), (1, 2, 3, 3))
    x.data[0, 0, 2, 2] = math.inf
    (grad_input, _) = torch.autograd.grad(F.conv2d(x, w), (x, w), g, create_graph=True)
    of_x, of_g = torch.autograd.grad(grad_input.sum(), (x, g), allow_unused=True)
    assert of_x is None
    assert of_g.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_depthwise_products_are_summed_wide(dtype: torch.dtype) -> None:
    """Of single taps too: 300² is beyond float16, 300·300 − 300·299 is not."""
    x = torch.full((1, 2, 1, 2), 300.0, dtype=dtype)
    w = torch.ones(2, 1, 1, 1, dtype=dtype, requires_grad=True)
    g = torch.tensor([300.0, -299.0], dtype=dtype).expand(1, 2, 1, 2)
    (ours,), (theirs,) = (torch.autograd.grad(f.conv2d(x, w, groups=2), w, g) for f in (F, TF))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_of_no_channels_the_bias_remains(kernel: int, stride: int) -> None:
    """torch.nn leaves the output channels out as well, which no layer behind it could take."""
    input, weight, bias = random_tensors((2, 0, 6, 6), (4, 0, kernel, kernel), (4,))
    output = F.conv2d(input, weight, bias, stride)
    assert torch.equal(output, bias.view(-1, 1, 1).expand_as(output))
    gradients = torch.autograd.grad(output.sum(), [input, weight])
    assert [gradient.shape for gradient in gradients] == [input.shape, weight.shape]


@pytest.mark.parametrize("size", [(2, 3, 0, 5), (3, 5, 0)])
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_pictures_without_pixels_as_torch(name: str, size: tuple[int, ...]) -> None:
    assert_as_torch(name, random_tensors(size, (3, 3, 1, 1)), {"padding": 1} if name == "conv2d" else {})


BAD = st.sampled_from([0, -1, 7, 2.5, None, "wrong", (), (1,), (0, 1), (1, 1, 1, 1), [1, -1], (1.5, 1), True])


@hypothesis.given(calls(), st.sampled_from(["stride", "padding", "dilation", "groups", "output_padding"]), BAD)
def test_bad_options_raise_as_torchs(call: Any, option: str, value: Any) -> None:
    name, shapes, options = call
    hypothesis.assume(option in options)
    assert_as_torch(name, random_tensors(*shapes), {**options, option: value})


@hypothesis.given(calls(), st.integers(0, 2), st.integers(0, 4), st.integers(1, 7))
def test_bad_shapes_raise_as_torchs(call: Any, which: int, dim: int, size: int) -> None:
    name, shapes, options = call
    hypothesis.assume(which < len(shapes) and dim < len(shapes[which]))
    shapes[which] = (*shapes[which][:dim], size, *shapes[which][dim + 1 :])
    assert_as_torch(name, random_tensors(*shapes), options)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", [1, 2, "same"])
def test_padding_modes(mode: str, dims: int, padding: Any) -> None:
    (input,) = random_tensors((2, 3, 5, 6, 4)[: dims + 2])
    results = []
    for library in (nn, torch.nn):
        torch.manual_seed(0)
        layer = getattr(library, f"Conv{dims}d")(3, 4, 2, padding=padding, padding_mode=mode).double()
        results.append(answers(lambda x, *_, layer=layer: layer(x), [input, *layer.parameters()]))
    assert_equal(*results)


@pytest.mark.parametrize("size", [(9, 10), (10, 11), (2, 4, 10, 11), (8, 10), (12, 11), (9,)])
def test_output_size(size: tuple[int, ...]) -> None:
    """ConvTranspose2d pads its end to reach a size that fits, and refuses others as torch.nn does."""
    (input,) = random_tensors((2, 3, 5, 6))
    results = []
    for library in (nn, torch.nn):
        torch.manual_seed(0)
        layer = library.ConvTranspose2d(3, 4, 3, stride=2, padding=1).double()
        results.append(outcome(lambda x, layer=layer: layer(x, output_size=list(size)), [input]))
    assert_same_outcome(*results)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_complex(name: str, dtype: torch.dtype) -> None:
    tensors = random_tensors((2, 4, 5, 6), (4, 4, 3, 3), (4,), dtype=dtype)
    function, theirs = getattr(F, name), getattr(TF, name)
    assert_equal(answers(function, tensors), answers(theirs, tensors))
    if dtype == torch.complex128:
        assert gradcheck(function, tensors, fast_mode=True, check_forward_ad=True)
        assert gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("infinite", ["x", "w", "dL/dy"])
def test_depthwise_infinities_stay_with_the_taps_that_see_them(
    memory_format: torch.memory_format, stride: int, infinite: str
) -> None:
    """Of float32, whose padding torch leaves out too: its float64 is multiplied by zeros, and infinities become NaN."""
    shapes = (2, 3, 6, 7), (3, 1, 3, 3), (2, 3, *((6, 7), (3, 4))[stride - 1])
    x, w, g = (t.detach() for t in random_tensors(*shapes, dtype=torch.float32))
    some = {"x": x, "w": w, "dL/dy": g}[infinite]
    some[0, -1, 0, 0], some[1, 0, 2, -1], some[1, 0, -1, 2] = math.inf, -math.inf, math.nan
    tensors = [x.contiguous(memory_format=memory_format).requires_grad_(), w.requires_grad_()]
    options = {"stride": stride, "padding": 1, "groups": 3}
    ours, theirs = F.conv2d(*tensors, **options), TF.conv2d(*tensors, **options)
    assert_equal([ours], [theirs])
    assert_equal(torch.autograd.grad(ours, tensors, g), torch.autograd.grad(theirs, tensors, g))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((1, 3), (2, 1), (2, 3), (1, 3)), ((0, 2), (3, 2), (1, 1), (1, 0)), ((2, 2), (1, 1), (1, 1), (2, 0))],
)
@pytest.mark.parametrize("batch", [0, 1])
def test_transposed_sizes_of_nothing(batch: int, size: Any, kernel: Any, stride: Any, padding: Any) -> None:
    """An output of no positions is one of an empty batch, and an error of others; one of fewer always is."""
    tensors = random_tensors((batch, 2, *size), (2, 3, *kernel), (3,))
    assert_as_torch("conv_transpose2d", tensors, {"stride": stride, "padding": padding})
