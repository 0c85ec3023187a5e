"""Every module can stand where torch.nn's stands: one test a property, over the module cases of every family."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch
from tests import lacks
from tests import subjects as harness
from tests.cases import EVERY_TEST, Case, ModuleCase, all_module_cases
from tests.subjects import assert_as_accurate, assert_equal, tensors_of

OURS, THEIRS = torchfromscratch.nn, torch.nn


@pytest.fixture(params=all_module_cases(), ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> ModuleCase:
    """Every case, unless it leaves the test out."""
    harness.skip_if_left_out(request, request.param.leave_out)
    return request.param


def build(case: ModuleCase, nn: Any, dtype: torch.dtype = torch.float64, device: str = "cpu") -> torch.nn.Module:
    """The module, from seed 0."""
    torch.manual_seed(0)
    return case.build(nn).to(device, dtype)


def inputs_of(case: ModuleCase, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    return Case(case.name, harness.apply, case.shapes).inputs(dtype, device)


def run(case: ModuleCase, module: torch.nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """The module's outputs."""
    torch.manual_seed(0)
    return tensors_of((case.call or harness.apply)(module, *inputs))


def answers(case: ModuleCase, module: torch.nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """The outputs, the gradients of inputs and parameters, and the buffers afterwards."""
    return [*harness.pull_back(run(case, module, inputs), [*inputs, *module.parameters()]), *module.buffers()]


def test_is_torchs_module(case: ModuleCase) -> None:
    """A subclass with the same repr and, from the same seed, the same parameters and buffers."""
    ours, theirs = build(case, OURS), build(case, THEIRS)
    assert isinstance(ours, type(theirs))
    assert type(ours) is not type(theirs) or list(ours.children())
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_constructors_and_calls_have_torchs_signatures() -> None:
    """By which torch.nn.utils.skip_init, editors and readers go; annotations apart."""

    def taken(function: Any) -> list[tuple]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    for name, ours in vars(OURS).items():
        if isinstance(ours, type) and ours.__module__.startswith(OURS.__name__):
            theirs = getattr(THEIRS, name)
            assert taken(ours) == taken(theirs), name
            assert taken(ours.forward) == taken(theirs.forward), name


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_values_and_gradients(case: ModuleCase, mode: str, device: str) -> None:
    """Twice in a row: what the first call leaves in the buffers, the second starts from."""
    ours, theirs = (getattr(build(case, nn, device=device), mode)() for nn in (OURS, THEIRS))
    inputs = inputs_of(case, device=device)
    for _ in range(2):
        assert_equal(answers(case, ours, inputs), answers(case, theirs, inputs), case.precision)


def test_some_parameters_frozen(case: ModuleCase) -> None:
    """With requires_grad_(False) for the inputs and every second parameter the others' gradients stay."""
    ours, theirs = build(case, OURS), build(case, THEIRS)
    inputs = [tensor.requires_grad_(False) for tensor in inputs_of(case)]
    for module in (ours, theirs):
        for parameter in list(module.parameters())[::2]:
            parameter.requires_grad_(False)
    assert_equal(answers(case, ours, inputs), answers(case, theirs, inputs), case.precision)


def test_state_dict_both_ways(case: ModuleCase) -> None:
    """Each loads what the other saved, strictly."""
    ours, theirs, inputs = build(case, OURS), build(case, THEIRS), inputs_of(case)
    with torch.no_grad():
        for tensor in [*ours.parameters(), *theirs.parameters()]:
            tensor.uniform_(-1, 1)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()), strict=True)
    expected = run(case, theirs, inputs)
    assert_equal(run(case, ours, inputs), expected)
    fresh = build(case, OURS)
    fresh.load_state_dict(build(case, THEIRS).state_dict(), strict=True)
    assert_equal(run(case, fresh, inputs), run(case, build(case, THEIRS), inputs))


def saved_and_loaded(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "deepcopy": copy.deepcopy,
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("duplicate", COPIES)
def test_copies(case: ModuleCase, duplicate: str) -> None:
    module, inputs = build(case, OURS), inputs_of(case)
    twin = COPIES[duplicate](module)
    assert type(twin) is type(module)
    assert_equal(answers(case, twin, inputs), answers(case, module, inputs))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # of an embedding, whose input has no gradient
def test_hooks(case: ModuleCase) -> None:
    """Forward and backward hooks run once each, and what a forward hook returns replaces the output."""
    module, inputs = build(case, OURS), inputs_of(case)
    runs = []
    module.register_forward_pre_hook(lambda *_: runs.append("forward pre"))
    module.register_forward_hook(lambda *_: runs.append("forward"))
    module.register_full_backward_pre_hook(lambda *_: runs.append("backward pre"))
    module.register_full_backward_hook(lambda *_: runs.append("backward"))
    outputs = [output for output in run(case, module, inputs) if output.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
    assert runs == ["forward pre", "forward", "backward pre", "backward"]
    replacement = torch.zeros(())
    module.register_forward_hook(lambda *_: replacement)
    torch.manual_seed(0)
    assert (case.call or harness.apply)(module, *inputs) is replacement


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_to_dtype(case: ModuleCase, dtype: torch.dtype, device: str) -> None:
    """`.to(dtype)`: the values err at most twice as much as torch.nn's."""
    ours, theirs = (build(case, nn, device=device).eval().to(dtype) for nn in (OURS, THEIRS))
    inputs = inputs_of(case, dtype, device)
    truth = run(case, copy.deepcopy(theirs).double(), [tensor.double() for tensor in inputs])
    expected = lacks.skip_if_unimplemented(lambda: run(case, theirs, inputs))
    assert_as_accurate(run(case, ours, inputs), expected, truth)


def test_meta(case: ModuleCase) -> None:
    """Built without memory, run without data, then given memory."""
    inputs = [tensor.to("meta") for tensor in inputs_of(case)]
    with torch.device("meta"):
        ours, theirs = case.build(OURS).double(), case.build(THEIRS).double()
    shapes = [[(y.shape, y.dtype, y.device) for y in run(case, module, inputs)] for module in (ours, theirs)]
    assert shapes[0] == shapes[1]
    theirs = build(case, THEIRS)
    ours.to_empty(device="cpu").load_state_dict(theirs.state_dict())
    assert_equal(run(case, ours, inputs_of(case)), run(case, theirs, inputs_of(case)))


def test_channels_last(case: ModuleCase) -> None:
    """After .to(memory_format=channels_last) the outputs lie as torch.nn's do."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    dim = max((len(shape) for shape in case.shapes), default=0)
    if dim not in formats:
        return
    ours, theirs = (
        build(case, nn, torch.float32).to(memory_format=formats[dim]) if dim == 4 else build(case, nn, torch.float32)
        for nn in (OURS, THEIRS)
    )
    inputs = inputs_of(case, torch.float32)
    strides = [[harness.strides(y) for y in run(case, module, inputs)] for module in (ours, theirs)]
    assert strides[0] == strides[1]


def test_export(case: ModuleCase) -> None:
    """torch.export's program gives the module's values."""
    if case.call is not None:
        pytest.skip("export takes the module's own arguments")
    module, inputs = build(case, OURS).eval(), tuple(inputs_of(case))
    export = functools.partial(torch.export.export, args=inputs, strict=False)
    with lacks.left_out_if_torch_refuses_too(lambda: export(build(case, THEIRS).eval())):
        program = export(module)
    assert_equal(tensors_of(program.module()(*inputs)), run(case, module, list(inputs)))


@pytest.mark.filterwarnings("ignore:torch.jit.trace records")
def test_trace(case: ModuleCase) -> None:
    """torch.jit.trace's program, saved and loaded, gives the module's values and gradients: it is plain operations."""
    if case.call is not None:
        pytest.skip("trace takes the module's own arguments")
    module, inputs = build(case, OURS).eval(), tuple(inputs_of(case))
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, inputs, check_trace=False), file)
    file.seek(0)
    assert_equal(answers(case, torch.jit.load(file), list(inputs)), answers(case, module, list(inputs)))


@pytest.mark.parametrize("twice", [0, -1], ids=["batch", "width"])
def test_trace_for_another_size(case: ModuleCase, twice: int) -> None:
    """torch.jit.trace's program holds for twice as large a batch, or twice as wide an input, or a warning said so."""
    if case.call is not None:
        pytest.skip("trace takes the module's own arguments")
    module, inputs = build(case, OURS).eval(), [tensor.detach() for tensor in inputs_of(case)]
    others = [torch.cat([tensor, tensor], twice) for tensor in inputs]
    try:
        expected = run(case, build(case, THEIRS).eval(), others)
    except (AssertionError, RuntimeError, ValueError):
        return  # the width is the number of features
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        traced = torch.jit.trace(module, tuple(inputs), check_trace=False)
    if constants := [str(warning.message) for warning in told if "torch.jit.trace records" in str(warning.message)]:
        pytest.skip(constants[0])
    assert_equal(run(case, traced, others), expected, case.precision)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
def test_trace_of_a_network_for_other_sizes(memory_format: torch.memory_format) -> None:
    """Of pictures of another size and number, and followed by autograd."""

    def network(nn: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 32, 3, padding=1),  # at the first size, Winograd's
            nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32),
            nn.SiLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(32, 8, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ).to(memory_format=memory_format)

    ours, theirs = network(OURS), network(torch.nn)
    traced = torch.jit.trace(ours, torch.randn(8, 3, 32, 32).contiguous(memory_format=memory_format))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 40, 24).contiguous(memory_format=memory_format)
    found = []
    for module in (traced, theirs):
        output = module(x)
        found.append([output, *torch.autograd.grad(output.square().sum(), list(module.parameters()))])
    assert_equal(*found)


@pytest.mark.parametrize(
    ("build", "dynamic"),
    [
        (lambda nn: nn.Conv2d(4, 3, 3, stride=2, padding=1), (0, 2, 3)),
        (lambda nn: nn.Conv2d(4, 3, 1), (0, 2, 3)),
        (lambda nn: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), (0, 2, 3)),
        (lambda nn: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), (0, 2, 3)),
        (lambda nn: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2)), (0,)),
    ],
    ids=["conv", "1×1", "depthwise", "norm and average", "maximum and linear"],
)
def test_export_for_all_sizes(build: Callable[[Any], Any], dynamic: tuple[int, ...]) -> None:
    """A dimension that is named dynamic is left open by the program, if each of its sizes leads the same way."""
    torch.manual_seed(0)
    module = build(OURS).eval()
    sizes = {dim: torch.export.Dim(f"size{dim}", min=4) for dim in dynamic}
    inputs = (torch.randn(4, 4, 8, 8),)
    with (
        torch._dynamo.config.patch(fake_tensor_cache_enabled=False),  # torch 2.9's asks for sizes that no graph has
        lacks.left_out_for(lacks.slices_of_open_sizes),
    ):
        program = torch.export.export(module, inputs, dynamic_shapes=(sizes,), strict=False).module()
    x = torch.randn(*[size + 3 * (dim in dynamic) for dim, size in enumerate((4, 4, 8, 8))])
    theirs = build(torch.nn).eval()
    theirs.load_state_dict(module.state_dict())
    torch.testing.assert_close(program(x), theirs(x))


@pytest.mark.skipif(not hasattr(torchfromscratch, "audit"), reason="needs torchfromscratch.audit")
def test_audit(case: ModuleCase, device: str) -> None:
    """No built-in layer runs in the forward or the backward, training or evaluating."""
    module, inputs = build(case, OURS, device=device), inputs_of(case, device=device)
    for mode in (True, False):
        with torchfromscratch.audit():
            answers(case, module.train(mode), inputs)


def test_leave_out_names_tests() -> None:
    """A misspelt name in a case's `leave_out` would leave nothing out."""
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for case in all_module_cases():
        if not case.name.startswith(harness.ONLY_MODULES):
            assert not set(case.leave_out) - tests - {EVERY_TEST}, case.name
