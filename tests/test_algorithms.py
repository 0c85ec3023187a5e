"""Every algorithm of convolution computes what torch computes, gradients of every order too."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

import torchfromscratch
import torchfromscratch.functional as F
from tests import lacks
from tests.subjects import answers, assert_equal, largest_error, outcome, random_tensors, scale, strides
from tests.test_convolution import calls
from torchfromscratch import nn
from torchfromscratch.kernels import blocking
from torchfromscratch.kernels.convolution import dispatch, reference, winograd, winograd_3d
from torchfromscratch.kernels.convolution.depthwise import DEPTHWISE
from torchfromscratch.kernels.convolution.depthwise_runs import DEPTHWISE_RUNS
from torchfromscratch.kernels.convolution.dispatch import KERNELS, choose
from torchfromscratch.kernels.convolution.fft import FFT
from torchfromscratch.kernels.convolution.im2col import IM2COL
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.pointwise import POINTWISE
from torchfromscratch.kernels.convolution.winograd import WINOGRAD
from torchfromscratch.kernels.convolution.winograd_3d import WINOGRAD_3D
from torchfromscratch.kernels.convolution.winograd_dilated import WINOGRAD_DILATED
from torchfromscratch.kernels.layout import copy_to_memory_format
from torchfromscratch.kernels.windows import Windows

FORMATS = [torch.contiguous_format, torch.channels_last]
FORMAT_NAMES = ["contiguous", "channels last"]
ALGORITHMS = [name for name in dispatch.ALGORITHMS if name != "triton"]  # tests/triton is about that one
BY_NAME = {name: next(kernel for kernel in KERNELS if kernel.name == name) for name in ALGORITHMS}


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "winograd"])
@hypothesis.given(call=calls())
def test_as_torch_for_random_options(name: str, call: tuple[str, list[tuple[int, ...]], dict[str, Any]]) -> None:
    function, shapes, options = call
    expected = outcome(lambda *given: getattr(TF, function)(*given, **options), random_tensors(*shapes))
    hypothesis.assume(isinstance(expected, list))
    with torchfromscratch.algorithm(name):
        actual = outcome(lambda *given: getattr(F, function)(*given, **options), random_tensors(*shapes))
    assert_equal(actual, expected)


COUNTS = st.integers(1, 3)

# What each algorithm fits, of what `tasks` draws.
ANY = {
    "dims": (1, 3),
    "kernel": (1, 4),
    "stride": (1, 3),
    "dilation": (1, 3),
    "groups": (1, 3),
    "per_group": (1, 2),
    "filters": (1, 3),
    "sees": (1, 1),  # inputs, at the least
}
OF_WINOGRAD = {"dims": (2, 2), "kernel": (3, 3), "stride": (1, 1), "groups": (1, 1), "per_group": (1, 5)}
FITS: list[tuple[Kernel, dict[str, tuple[int, int]]]] = [
    (POINTWISE, {"kernel": (1, 1), "sees": (0, 1)}),
    (DEPTHWISE_RUNS, {"groups": (2, 4), "per_group": (1, 1)}),
    (DEPTHWISE_RUNS, {"groups": (2, 4), "per_group": (1, 1), "filters": (1, 1), "stride": (1, 1)}),  # both gradients
    (DEPTHWISE, {"groups": (2, 4), "per_group": (1, 1)}),
    (WINOGRAD, {**OF_WINOGRAD, "dilation": (1, 1)}),
    (WINOGRAD_DILATED, OF_WINOGRAD),
    (WINOGRAD_3D, {**OF_WINOGRAD, "dims": (3, 3), "dilation": (1, 1)}),
    (FFT, {}),  # of nothing but padding it computes 0 but for rounding
    (IM2COL, {"sees": (0, 1)}),
    (IM2COL, {"groups": (1, 1), "per_group": (1, 1), "stride": (1, 1)}),  # columns longer than rows
]


SIZES_OF_BLOCKS = [
    (blocking, "BATCH_BLOCK_BYTES"),
    (winograd, "ELEMENTS_PER_CORE"),
    (winograd, "LEAST_TILES"),
    (winograd_3d, "BLOCK_BYTES"),
]


@st.composite
def tasks(draw: st.DrawFn, **given: tuple[int, int]) -> Task:
    """A convolution of float64 numbers, whose windows may see nothing but padding where `sees` begins with 0."""
    ranges = {**ANY, **given}
    dims, groups, batch = draw(st.integers(*ranges["dims"])), draw(st.integers(*ranges["groups"])), draw(COUNTS)

    def each(name: str) -> tuple[int, ...]:
        """Where there are volumes alone, for Winograd, they have any kernel, stride and dilation along their depth."""
        along_depth = [ANY[name]] if ranges["dims"] == (3, 3) else []
        return tuple(draw(st.integers(*ends)) for ends in (*along_depth, *[ranges[name]] * (dims - len(along_depth))))

    kernel, stride, dilation = each("kernel"), each("stride"), each("dilation")
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sees = ranges["sees"][0]
    padding = tuple(draw(st.integers(0, min(2, span - 1) if sees else 2)) for span in extent)
    size = tuple(max(1, span - 2 * p) + draw(st.integers(0, 5)) for span, p in zip(extent, padding, strict=True))
    channels = groups * draw(st.integers(*ranges["per_group"])), groups * draw(st.integers(*ranges["filters"]))
    windows = Windows(kernel, stride, padding, dilation, groups)
    return Task(batch, channels, size, windows, torch.float64, draw(st.booleans()), on_cpu=True, is_tracing=False)


@pytest.mark.parametrize(
    ("kernel", "fitting"), FITS, ids=[kernel.correlate.__module__.rpartition(".")[2] for kernel, _ in FITS]
)
@hypothesis.given(data=st.data())
def test_as_the_reference(kernel: Kernel, fitting: dict[str, tuple[int, int]], data: st.DataObject) -> None:
    """In float64, all three partial derivatives of the trilinear form, those of gradients that come in pairs too.

    Also in the smallest blocks, and as if there were more threads.
    """
    task = data.draw(tasks(**fitting))
    if kernel is DEPTHWISE_RUNS:
        task = replace(task, channels_last=False)
    assert kernel.fits(task)
    windows, (channels, filters) = task.windows, task.channels
    # what output_padding, which is less than a stride or a dilation, makes room for is no output
    room = [(max(s, d) - 1) // s for s, d in zip(windows.stride, windows.dilation, strict=True)]
    outputs = windows.output_size(task.input_size)
    size = tuple(max(1, o - data.draw(st.integers(0, most))) for o, most in zip(outputs, room, strict=True))
    x, w, b, g = (
        copy_to_memory_format(t.detach(), task.channels_last)
        for t in random_tensors(
            (task.batch, channels, *task.input_size),
            (filters, channels // windows.groups, *windows.kernel_size),
            (filters, 1, 1),
            (task.batch, filters, *size),
        )
    )
    b = b.flatten()
    expected = reference.full_convolution(g, w, windows, task.input_size), reference.weight_gradient(x, g, windows)
    with pytest.MonkeyPatch.context() as patch:
        for module, constant in SIZES_OF_BLOCKS * data.draw(st.booleans()):
            patch.setattr(module, constant, 1)
        threads = data.draw(COUNTS)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        assert_equal([kernel.correlate(x, w, b, windows)], [reference.correlate(x, w, b, windows)])
        both = kernel.full_convolution(g, w, windows, task.input_size), kernel.weight_gradient(x, g, windows)
        assert_equal([*both], [*expected])
        if kernel.gradients is not None and windows.all_see_input:
            assert_equal([*kernel.gradients(x, w, g, windows)], [*expected])


@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_NAMES)
@hypothesis.given(
    batch=st.integers(1, 5),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    followed=st.sampled_from([(True, True), (True, False), (False, True)]),
    share=st.sampled_from([1, winograd.ELEMENTS_PER_CORE]),
    threads=st.integers(1, 3),
)
def test_winograd_as_torch(
    memory_format: torch.memory_format,
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    followed: tuple[bool, bool],
    share: int,
    threads: int,
) -> None:
    """Also where a core's share is less than a picture, and where there are more cores than pictures.

    Both gradients together and each of them alone.
    """
    hypothesis.assume(all(i + 2 * p > 2 * d for i, p, d in zip(size, padding, dilation, strict=True)))
    shapes = (batch, channels[0], *size), (channels[1], channels[0], 3, 3), (channels[1],)
    x, w, b = (tensor.detach() for tensor in random_tensors(*shapes))
    follow_x, follow_w = followed
    x = x.contiguous(memory_format=memory_format).requires_grad_(follow_x)
    tensors = [x, w.requires_grad_(follow_w), b.requires_grad_()]
    with pytest.MonkeyPatch.context() as patch, torchfromscratch.algorithm("winograd"):
        patch.setattr(winograd, "ELEMENTS_PER_CORE", share)
        patch.setattr(winograd, "LEAST_TILES", min(share, winograd.LEAST_TILES))
        patch.setattr(torch, "get_num_threads", lambda: threads)
        actual = answers(lambda *given: F.conv2d(*given, padding=padding, dilation=dilation), tensors)
    expected = answers(lambda *given: TF.conv2d(*given, padding=padding, dilation=dilation), tensors)
    assert_equal(actual, expected)
    assert strides(actual[0]) == strides(F.conv2d(*tensors, padding=padding, dilation=dilation))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=FORMAT_NAMES)
@hypothesis.given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(2, 9), st.integers(2, 9)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    deep=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    followed=st.sampled_from([(True, True), (True, False), (False, True)]),
    part_bytes=st.sampled_from([1, winograd_3d.BLOCK_BYTES]),
)
def test_winograd_of_planes_as_torch(
    memory_format: torch.memory_format,
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int, int],
    padding: tuple[int, int, int],
    deep: int,
    stride: int,
    dilation: int,
    followed: tuple[bool, bool],
    part_bytes: int,
) -> None:
    """Both gradients together and each of them alone."""
    extent = dilation * (deep - 1) + 1, 3, 3
    hypothesis.assume(all(i + 2 * p >= e for i, p, e in zip(size, padding, extent, strict=True)))
    shapes = (batch, channels[0], *size), (channels[1], channels[0], deep, 3, 3), (channels[1],)
    x, w, b = (tensor.detach() for tensor in random_tensors(*shapes))
    follow_x, follow_w = followed
    x = x.contiguous(memory_format=memory_format).requires_grad_(follow_x)
    tensors = [x, w.requires_grad_(follow_w), b.requires_grad_()]
    options: dict[str, Any] = {"padding": padding, "stride": (stride, 1, 1), "dilation": (dilation, 1, 1)}
    with pytest.MonkeyPatch.context() as patch, torchfromscratch.algorithm("winograd"):
        patch.setattr(winograd_3d, "BLOCK_BYTES", part_bytes)
        actual = answers(lambda *given: F.conv3d(*given, **options), tensors)
    assert_equal(actual, answers(lambda *given: TF.conv3d(*given, **options), tensors))
    assert strides(actual[0]) == strides(F.conv3d(*tensors, **options))


@pytest.mark.parametrize("channels_last", [False, True], ids=FORMAT_NAMES)
@hypothesis.settings(max_examples=200)  # many of them have nothing behind a row
@hypothesis.given(
    batch=st.integers(1, 3),
    channels=st.integers(2, 4),
    multiplier=st.integers(1, 2),
    dims=st.lists(  # size, kernel, stride, padding, dilation
        st.tuples(*(st.integers(*ends) for ends in ((1, 9), (1, 5), (1, 3), (0, 4), (1, 2)))), min_size=1, max_size=3
    ),
    followed=st.sampled_from([(True, True), (True, False), (False, True)]),
    chunk_bytes=st.sampled_from([1, blocking.BATCH_BLOCK_BYTES]),
)
def test_depthwise_as_torch(
    channels_last: bool,
    batch: int,
    channels: int,
    multiplier: int,
    dims: list[tuple[int, ...]],
    followed: tuple[bool, bool],
    chunk_bytes: int,
) -> None:
    """Both gradients together and each of them alone; also a picture at a time."""
    size, kernel, stride, padding, dilation = zip(*dims, strict=True)
    shapes = (batch, channels, *size), (channels * multiplier, 1, *kernel), (channels * multiplier,)
    x, w, b = (tensor.detach() for tensor in random_tensors(*shapes))
    if channels_last and len(dims) > 1:
        x = x.contiguous(memory_format=torch.channels_last if len(dims) == 2 else torch.channels_last_3d)
    tensors = [x.requires_grad_(followed[0]), w.requires_grad_(followed[1]), b.requires_grad_()]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    expected = outcome(lambda *given: getattr(TF, f"conv{len(dims)}d")(*given, **options), tensors)
    hypothesis.assume(isinstance(expected, list))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "BATCH_BLOCK_BYTES", chunk_bytes)
        actual = answers(lambda *given: getattr(F, f"conv{len(dims)}d")(*given, **options), tensors)
    assert_equal(actual, expected)
    if len(dims) < 3:  # of volumes in float64, torch gives the format up
        assert [strides(tensor) for tensor in actual] == [strides(tensor) for tensor in expected]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_NAMES)
@pytest.mark.parametrize(
    "record",
    [
        torch.jit.trace,
        lambda layer, x: torch.export.export(layer, (x,), strict=False).module(),
        lambda layer, x: make_fx(layer)(x),
    ],
    ids=["trace", "export", "make_fx"],
)
def test_recorded_depthwise(record: Any, memory_format: torch.memory_format, stride: int) -> None:
    """Autograd follows a record of what is written in place."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"stride": stride, "padding": 1, "groups": 4}
    layer, theirs = nn.Conv2d(4, 8, 3, **options), torch.nn.Conv2d(4, 8, 3, **options)
    theirs.load_state_dict(layer.state_dict())
    (x,) = random_tensors((2, 4, 9, 8), dtype=torch.float32)
    x = x.detach().contiguous(memory_format=memory_format)
    recorded = record(layer, x)
    assert_equal(answers(recorded, [x.requires_grad_()]), answers(theirs, [x]))


@hypothesis.given(size=st.integers(0, 40), elements=st.integers(0, 40), threads=st.integers(1, 5))
def test_parts_of_a_batch(size: int, elements: int, threads: int) -> None:
    """They are all of it, fit but for what makes them even, and are of as many pictures for each core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "BATCH_BLOCK_BYTES", 400)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        parts = blocking.axis_blocks(torch.empty(0), size, elements)
    assert [number for part in parts for number in range(part.start, part.stop)] == list(range(size))
    most = max(1, 100 // max(1, elements))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) < most + threads
    if most >= threads:
        assert all(length % threads == 0 for length in lengths[:-1])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_derivatives(name: str, device: str) -> None:
    tensors = [t.detach().to(device).requires_grad_() for t in random_tensors((2, 2, 6, 7), (3, 2, 3, 3), (3,))]

    def function(*given: Tensor) -> Tensor:
        with torchfromscratch.algorithm(name):
            return F.conv2d(*given, padding=1)

    assert gradcheck(function, tensors, fast_mode=True, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_take_the_algorithm_of_their_forward_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, and both together, which Winograd's method finds in one transform."""
    both = {"gradients"} if name == "winograd" else {"full_convolution", "weight_gradient"}
    called = set()

    def spied(operation: str) -> Any:
        real = getattr(BY_NAME[name], operation)

        def spy(*args: Any) -> Any:
            called.add(operation)
            return real(*args)

        return spy

    for operation in {"full_convolution", "weight_gradient"} | both:
        monkeypatch.setattr(BY_NAME[name], operation, spied(operation))
    x, w = (tensor.detach() for tensor in random_tensors((2, 2, 6, 7), (3, 2, 3, 3)))
    for followed, expected in (([x], {"full_convolution"}), ([w], {"weight_gradient"}), ([x, w], both)):
        called.clear()
        given = [tensor.clone().requires_grad_(any(tensor is one for one in followed)) for tensor in (x, w)]
        with torchfromscratch.algorithm(name):
            output = F.conv2d(*given)
        output.sum().backward()
        assert called == expected


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_compiled_code_computes_the_same_from_its_first_call(name: str, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    tensors = random_tensors((2, 2, 6, 7), (3, 2, 3, 3), (3,), dtype=dtype)

    compiled = torch.compile(lambda *given: F.conv2d(*given, padding=1), backend="aot_eager", fullgraph=True)
    with torchfromscratch.algorithm(name), lacks.left_out_for(lacks.strides_in_traced_backward):
        actual = answers(compiled, tensors)
    assert_equal(actual, answers(lambda *given: TF.conv2d(*given, padding=1), tensors))


def test_chosen_inside_a_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the convolutions of its block alone, forward and backward, and in a graph without breaks."""
    torch.compiler.reset()
    called = []
    for name, method in BY_NAME.items():
        for operation in ("correlate", "full_convolution", "weight_gradient"):
            real = getattr(method, operation)
            spy = lambda *args, real=real, name=name: called.append(name) or real(*args)  # noqa: E731
            monkeypatch.setattr(method, operation, spy)

    def both(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        with torchfromscratch.algorithm("fft"):
            inside = F.conv2d(x, w, padding=1)
        return inside + F.conv2d(x, w, padding=1)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    with lacks.left_out_for(lacks.context_managers_in_traced_code, lacks.compiling_told_from_exporting):
        answers(compiled, random_tensors((1, 2, 6, 7), (2, 2, 3, 3)))
    assert {*called[:2]} == {"fft", "im2col"}
    assert sorted(called[2:]) == ["fft", "fft", "im2col", "im2col"]


def test_algorithms_nest_and_end() -> None:
    x, w = random_tensors((1, 1, 5, 5), (1, 1, 5, 5))
    with torchfromscratch.algorithm("winograd"):
        with torchfromscratch.algorithm("fft"):
            F.conv2d(x, w)
        with pytest.raises(ValueError, match=r"'winograd' is made for 3×3 kernels.*kernel_size=\(5, 5\).*im2col"):
            F.conv2d(x, w)
    F.conv2d(x, w)


def test_unknown_algorithm() -> None:
    with pytest.raises(ValueError, match="unknown algorithm 'strassen'; choose one of 'reference', 'im2col'"):
        torchfromscratch.algorithm("strassen").__enter__()


@pytest.mark.parametrize(
    ("shape", "weight", "options", "method"),
    [
        ((128, 64, 16, 16), (64, 64, 3, 3), {"padding": (1, 1)}, WINOGRAD),
        ((1, 64, 8, 8), (64, 64, 3, 3), {"padding": (1, 1)}, IM2COL),
        ((128, 64, 16, 16), (64, 64, 3, 3), {"padding": (1, 1), "stride": (2, 2)}, IM2COL),
        ((16, 64, 32, 32), (64, 64, 3, 3), {"padding": (2, 2), "dilation": (2, 2)}, WINOGRAD_DILATED),
        ((16, 64, 32, 32), (64, 64, 3, 3), {"padding": (4, 4), "dilation": (4, 4)}, IM2COL),
        ((4, 16, 16, 32, 32), (16, 16, 3, 3, 3), {"padding": (1, 1, 1)}, WINOGRAD_3D),
        ((4, 16, 16, 32, 32), (16, 16, 3, 3, 3), {"padding": (1, 1, 1), "stride": (2, 2, 2)}, IM2COL),
        ((128, 64, 16, 16), (64, 64, 1, 1), {}, POINTWISE),
        ((128, 64, 16, 16), (64, 1, 3, 3), {"groups": 64}, DEPTHWISE_RUNS),
        ((128, 64, 16, 16), (64, 1, 3, 3), {"groups": 64, "padding": (3, 1)}, IM2COL),
        ((4, 64, 64, 64), (64, 64, 31, 31), {"padding": (15, 15)}, FFT),
        ((1, 4, 512, 512), (4, 1, 1, 255), {"padding": (0, 127), "groups": 4}, FFT),
        ((1, 4, 512, 512), (4, 1, 1, 17), {"padding": (0, 8), "groups": 4}, DEPTHWISE_RUNS),
        ((0, 64, 16, 16), (64, 64, 3, 3), {}, IM2COL),
        ((128, 0, 16, 16), (64, 0, 1, 1), {}, IM2COL),
    ],
)
def test_rule(shape: Any, weight: Any, options: dict[str, Any], method: Any) -> None:
    dims = len(weight) - 2
    defaults = {"stride": (1,) * dims, "padding": (0,) * dims, "dilation": (1,) * dims}
    windows = Windows(weight[2:], **{**defaults, **options})
    operands = torch.empty(shape), torch.empty(weight)
    assert choose(operands, (shape[1], weight[0]), shape[2:], windows, None) is method
    if method is DEPTHWISE_RUNS:
        last = operands[0].contiguous(memory_format=torch.channels_last), operands[1]
        assert choose(last, (shape[1], weight[0]), shape[2:], windows, None) is DEPTHWISE


@pytest.mark.parametrize(
    ("shape", "weight", "padding", "dilation"),
    [
        ((8, 32, 32, 32), (32, 32, 3, 3), 1, 1),
        ((32, 64, 16, 16), (64, 64, 3, 3), 1, 1),
        ((16, 256, 16, 16), (256, 256, 3, 3), 1, 1),
        ((16, 64, 32, 32), (64, 64, 3, 3), 2, 2),
        ((2, 16, 8, 32, 32), (16, 16, 3, 3, 3), 1, 1),
        ((2, 32, 40, 40), (32, 32, 15, 15), 7, 1),
        ((16, 64, 14, 14), (128, 64, 1, 1), 0, 1),
        ((16, 64, 14, 14), (64, 1, 3, 3), 1, 1),
        ((16, 3, 32, 32), (64, 3, 7, 7), 3, 1),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True], ids=FORMAT_NAMES)
def test_float32_accuracy(shape: Any, weight: Any, padding: int, dilation: int, channels_last: bool) -> None:
    """Whatever algorithm the rule chooses: at most 8 times torch's own error, and 1e-5 of the result's scale."""
    generator = torch.Generator().manual_seed(0)
    x, w = (copy_to_memory_format(torch.randn(size, generator=generator), channels_last) for size in (shape, weight))
    name = f"conv{len(shape) - 2}d"
    options = {"padding": padding, "dilation": dilation, "groups": shape[1] // weight[1]}
    by_torch, by_hand = (partial(getattr(namespace, name), **options) for namespace in (TF, F))
    truth = answers(by_torch, [t.double().requires_grad_() for t in (x, w)])
    contiguous = [t.contiguous().requires_grad_() for t in (x, w)]  # torch's large kernels channels last take a minute
    theirs = answers(by_torch, contiguous)
    ours = answers(by_hand, [t.requires_grad_() for t in (x, w)])
    for our, their, true in zip(ours, theirs, truth, strict=True):
        error = largest_error(our, true)
        assert error <= 1e-5 * scale(true)
        assert error <= 8 * largest_error(their, true) + torch.finfo(torch.float32).eps * scale(true)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_types_round_once(name: str, dtype: torch.dtype) -> None:
    x, w = (t.detach().to(dtype) for t in random_tensors((2, 8, 9, 9), (8, 8, 3, 3)))
    with torchfromscratch.algorithm(name):
        output = F.conv2d(x, w, padding=1)
    truth = TF.conv2d(x.double(), w.double(), padding=1)
    assert output.dtype == dtype
    assert largest_error(output, truth) <= torch.finfo(dtype).eps * scale(truth)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_overlapping_windows_are_summed_in_float32(dtype: torch.dtype) -> None:
    x, w = (t.detach().to(dtype) for t in random_tensors((2, 16, 20, 20), (16, 16, 9, 9)))
    output = F.conv_transpose2d(x, w, stride=2)
    truth = TF.conv_transpose2d(x.double(), w.double(), stride=2)
    assert output.dtype == dtype
    assert largest_error(output, truth) <= torch.finfo(dtype).eps / 2 * scale(truth)


@pytest.mark.parametrize(
    ("steps", "matrix", "inputs", "outputs"),
    [
        (winograd.to_points, torch.tensor(winograd.INPUT_TRANSFORM, dtype=torch.float64), 6, 6),
        (winograd.from_points, torch.tensor(winograd.OUTPUT_TRANSFORM, dtype=torch.float64), 6, 4),
        (winograd.grad_to_points, torch.tensor(winograd.OUTPUT_TRANSFORM, dtype=torch.float64).mT, 4, 6),
    ],
    ids=["Bᵀ x", "Aᵀ m", "A g"],
)
def test_winograds_steps_multiply_by_their_matrices(steps: Any, matrix: Tensor, inputs: int, outputs: int) -> None:
    x, out = (torch.randn(points, 2, 1, 1, 1, 7, dtype=torch.float64) for points in (inputs, outputs))
    expected = matrix @ x.flatten(1)
    for step in steps(x, out):
        step()
    assert_equal([out.flatten(1)], [expected])
