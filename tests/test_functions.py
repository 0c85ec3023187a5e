"""Every function does all that torch's does: one test a property, over the cases of every family."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

import torchfromscratch
from tests import lacks, test_modules, test_saved
from tests import subjects as harness
from tests.cases import EVERY_TEST
from tests.subjects import Subject, answers, assert_as_accurate, assert_equal, loss, repeatable, tensors_of


@pytest.fixture(params=harness.subjects(), ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Every case, unless it leaves the test out."""
    harness.skip_if_left_out(request, request.param.leave_out)
    return request.param


def test_values_and_gradients(subject: Subject, device: str) -> None:
    inputs = subject.inputs(device=device)
    assert_equal(answers(subject.ours, inputs), answers(subject.theirs, inputs), subject.precision)


def test_first_derivatives(subject: Subject, device: str) -> None:
    """Reverse and forward mode against finite differences, one by one and batched."""
    assert gradcheck(
        repeatable(subject.ours),
        subject.inputs(device=device),
        fast_mode=True,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_second_derivatives(subject: Subject, device: str) -> None:
    """Reverse and forward mode over reverse mode against finite differences."""
    inputs = subject.inputs(device=device)
    assert gradgradcheck(repeatable(subject.ours), inputs, fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.slow
def test_every_element_of_the_derivatives(subject: Subject, device: str) -> None:
    """As the two above, element by element instead of along a random direction."""
    inputs = subject.inputs(device=device)
    assert gradcheck(repeatable(subject.ours), inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(repeatable(subject.ours), inputs, check_fwd_over_rev=True)


def test_vmap(subject: Subject) -> None:
    """Mapped over each argument alone, and over all of them along their last dimension."""
    variants = [subject.inputs(seed=seed) for seed in (0, 1)]
    count = len(variants[0])
    for mapped in [*([number] for number in range(count)), list(range(count))]:
        dim = -1 if len(mapped) > 1 else 0
        in_dims = tuple(dim if number in mapped else None for number in range(count))
        stacked = [
            torch.stack(pair, dim) if number in mapped else pair[0]
            for number, pair in enumerate(zip(*variants, strict=True))
        ]
        loop = [
            [pair[which if number in mapped else 0] for number, pair in enumerate(zip(*variants, strict=True))]
            for which in (0, 1)
        ]
        mapped_ours = torch.func.vmap(repeatable(subject.ours), in_dims, randomness="same")
        each = [tensors_of(repeatable(subject.theirs)(*arguments)) for arguments in loop]
        assert_equal(tensors_of(mapped_ours(*stacked)), [torch.stack(pair) for pair in zip(*each, strict=True)])


def test_per_sample_gradients(subject: Subject) -> None:
    """vmap(grad) over the first argument, for all arguments."""
    samples, shared = [subject.inputs(seed=seed)[0] for seed in (0, 1)], subject.inputs()[1:]
    arguments = tuple(range(1 + len(shared)))
    gradients = torch.func.grad(loss(repeatable(subject.ours)), arguments)
    in_dims = (0, *(None for _ in shared))
    ours = torch.func.vmap(gradients, in_dims, randomness="same")(torch.stack(samples), *shared)
    scalar = loss(repeatable(subject.theirs))
    each = [torch.autograd.grad(scalar(x, *shared), [x, *shared], materialize_grads=True) for x in samples]
    assert_equal(ours, [torch.stack(pair) for pair in zip(*each, strict=True)], subject.precision)


def test_jacobian_and_hessian(subject: Subject) -> None:
    """torch.func.jacrev and torch.func.hessian by the first argument, against torch.autograd.functional."""
    first, *others = [tensor.detach() for tensor in subject.inputs()]
    ours, theirs = repeatable(subject.ours), repeatable(subject.theirs)

    def tensors(function: Callable[..., Any]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        return lambda x: tuple(y for y in tensors_of(function(x, *others)) if y.is_floating_point())

    jacobian = torch.autograd.functional.jacobian(tensors(theirs), first)
    assert_equal(torch.func.jacrev(tensors(ours))(first), jacobian, subject.precision)
    try:
        hessian = torch.autograd.functional.hessian(lambda x: loss(theirs)(x, *others), first)
    except RuntimeError as error:
        pytest.skip(f"torch: {error}")
    assert_equal([torch.func.hessian(lambda x: loss(ours)(x, *others))(first)], [hessian], subject.precision)


def test_forward_over_forward(subject: Subject) -> None:
    """torch.func.jvp of jvp, along all arguments at once, against torch's gradient of its gradient."""
    inputs = tuple(subject.inputs())
    directions = tuple(harness.cotangent(tensor) for tensor in inputs)
    try:
        gradients = torch.autograd.grad(
            loss(repeatable(subject.theirs))(*inputs), inputs, create_graph=True, materialize_grads=True
        )
        slope = sum([(gradient * along).sum() for gradient, along in zip(gradients, directions, strict=True)])
        second = torch.autograd.grad(slope, inputs, materialize_grads=True) if slope.requires_grad else []
    except RuntimeError as error:
        pytest.skip(f"torch: {error}")
    curvature = sum([(gradient * along).sum() for gradient, along in zip(second, directions, strict=False)], 0 * slope)
    ours = loss(repeatable(subject.ours))
    primals = tuple(tensor.detach() for tensor in inputs)
    _, actual = torch.func.jvp(lambda *x: torch.func.jvp(ours, x, directions)[1], primals, directions)
    assert_equal([actual], [curvature], subject.precision)


def one_of_each_function() -> list[Any]:
    """The cases as parameters, all but the first of each function behind the slow marker: tracing takes long."""
    seen: set[str] = set()
    parameters = []
    for subject in harness.subjects():
        function = subject.name.split(" ")[0]
        parameters.append(pytest.param(subject, id=subject.name, marks=[pytest.mark.slow] * (function in seen)))
        seen.add(function)
    return parameters


def compiled_answers(subject: Subject, device: str, backend: str, fullgraph: bool = True) -> list[Tensor]:
    torch._dynamo.reset()
    inputs = subject.inputs(device=device)
    torch.manual_seed(0)
    output = torch.compile(subject.ours, fullgraph=fullgraph, backend=backend)(*inputs)
    return harness.pull_back(output, inputs)


def assert_compiles(subject: Subject, device: str, backend: str) -> None:
    """Traced whole, forward and backward; right but in parts, and skipped, where Dynamo cannot."""
    expected = answers(subject.ours, subject.inputs(device=device))
    with lacks.left_out_for(lacks.strides_in_traced_backward):
        try:
            compiled = compiled_answers(subject, device, backend)
        except torch._dynamo.exc.TorchDynamoException:
            assert_equal(compiled_answers(subject, device, backend, fullgraph=False), expected)
            raise
        assert_equal(compiled, expected)


@pytest.mark.parametrize("traced", one_of_each_function())
def test_compile(traced: Subject, device: str, request: pytest.FixtureRequest) -> None:
    harness.skip_if_left_out(request, traced.leave_out)
    assert_compiles(traced, device, "aot_eager")


# What is compiled in further ways by default; the other functions with `-m slow`, as tracing takes long.
COMPILED_GRADIENTS = ("conv2d", "conv_transpose2d", "linear", "layer_norm", "max_pool2d", "cross_entropy")
COMPILED_WITHOUT = (*COMPILED_GRADIENTS, "leaky_relu", "lp_pool2d", "local_response_norm", "batch_norm", "embedding")


def first_of_each_function(by_default: tuple[str, ...]) -> list[Any]:
    """The first case of each function as a parameter, most behind the slow marker."""
    first = {subject.name.split(" ")[0]: subject for subject in reversed(list(harness.subjects()))}
    return [
        pytest.param(subject, id=subject.name, marks=[pytest.mark.slow] * (function not in by_default))
        for function, subject in first.items()
    ]


@pytest.mark.parametrize("traced", first_of_each_function(COMPILED_WITHOUT))
def test_compile_where_no_gradient_is_asked_for(traced: Subject, device: str, request: pytest.FixtureRequest) -> None:
    """Traced whole, as a model that is evaluated is."""
    harness.skip_if_left_out(request, traced.leave_out)
    torch._dynamo.reset()
    inputs = traced.inputs(device=device)
    with torch.no_grad():
        expected = tensors_of(repeatable(traced.ours)(*inputs))
        torch.manual_seed(0)
        compiled = torch.compile(traced.ours, fullgraph=True, backend="eager")(*inputs)
    assert_equal(tensors_of(compiled), expected)


@pytest.mark.slow
def test_compile_with_inductor(subject: Subject, device: str) -> None:
    assert_compiles(subject, device, "inductor")


@pytest.mark.parametrize("mapped", [False, True], ids=["grad", "vmap of grad"])
@pytest.mark.parametrize("traced", first_of_each_function(COMPILED_GRADIENTS))
def test_compiled_gradient_of_torch_func(traced: Subject, mapped: bool, request: pytest.FixtureRequest) -> None:
    """By the first argument, where autograd is to differentiate by the others: Dynamo says that only they need it."""
    harness.skip_if_left_out(request, traced.leave_out)
    first, *others = traced.inputs()
    ours, theirs = loss(repeatable(traced.ours)), loss(repeatable(traced.theirs))
    (expected,) = torch.autograd.grad(theirs(first, *others), first, materialize_grads=True)
    gradient = torch.func.grad(lambda x: ours(x, *others))
    if mapped:
        gradient = torch.func.vmap(gradient, randomness="same")
        first, expected = first[None], expected[None]
    torch.compiler.reset()
    actual = torch.compile(gradient, backend="aot_eager")(first.detach())
    assert_equal([actual], [expected], traced.precision)


def test_checkpoint(subject: Subject, device: str) -> None:
    """Computed again for the backward pass instead of kept."""
    inputs = subject.inputs(device=device)
    again = answers(lambda *tensors: checkpoint(subject.ours, *tensors, use_reentrant=False), inputs)
    assert_equal(again, answers(subject.ours, inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_accuracy(subject: Subject, dtype: torch.dtype, device: str) -> None:
    """Values and gradients err at most twice as much as torch's."""
    inputs = subject.inputs(dtype, device)
    truth = answers(subject.theirs, [tensor.detach().double().requires_grad_() for tensor in inputs])
    theirs = lacks.skip_if_unimplemented(lambda: answers(subject.theirs, inputs))
    assert_as_accurate(answers(subject.ours, inputs), theirs, truth)


def test_autocast(subject: Subject, device: str) -> None:
    """Inside torch.autocast the same types come out, as accurate as torch's."""
    inputs = subject.inputs(torch.float32, device)
    truth = answers(subject.theirs, [tensor.detach().double().requires_grad_() for tensor in inputs])
    with torch.autocast(device, torch.bfloat16):
        ours, theirs = repeatable(subject.ours)(*inputs), repeatable(subject.theirs)(*inputs)
    assert_as_accurate(harness.pull_back(ours, inputs), harness.pull_back(theirs, inputs), truth)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_autocast_of_other_types(subject: Subject, dtype: torch.dtype, device: str) -> None:
    """Inside torch.autocast, what is narrow already or float64 gives outputs of torch's types."""
    inputs = subject.inputs(dtype, device)
    with torch.autocast(device, torch.bfloat16):
        theirs = lacks.skip_if_unimplemented(lambda: tensors_of(repeatable(subject.theirs)(*inputs)))
        ours = tensors_of(repeatable(subject.ours)(*inputs))
    assert [y.dtype for y in ours] == [y.dtype for y in theirs]


def test_memory_format(subject: Subject, device: str) -> None:
    """The output lies in memory as torch's does, for inputs channels first and last."""
    for layout in (torch.contiguous_format, "channels last"):
        inputs = [in_layout(tensor, layout) for tensor in subject.inputs(torch.float32, device)]
        ours, theirs = (tensors_of(repeatable(function)(*inputs)) for function in (subject.ours, subject.theirs))
        assert [harness.strides(y) for y in ours] == [harness.strides(y) for y in theirs], layout


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace. is deprecated")
def test_trace(subject: Subject) -> None:
    """What torch.jit.trace records computes other numbers as well, in float64: sizes are tensors to it."""
    if subject.name.startswith(harness.ONLY_MODULES):
        pytest.skip("torch.func.functional_call is not traced; test_modules.py traces the module")
    inputs, others = [[tensor.detach() for tensor in subject.inputs(seed=seed)] for seed in (0, 1)]
    traced = torch.jit.trace(subject.ours, tuple(inputs), check_trace=False)
    expected = tensors_of(repeatable(subject.ours)(*others))
    torch.testing.assert_close(
        tensors_of(repeatable(traced)(*others)), expected, rtol=1e-12, atol=1e-12, equal_nan=True
    )


def test_the_order_in_memory_changes_no_number(subject: Subject) -> None:
    """Arguments and dL/dy have their dimensions in any order in memory, as what comes from transposes has."""
    draw = random.Random(subject.name)

    def shuffled(tensor: Tensor) -> Tensor:
        order = draw.sample(range(tensor.dim()), tensor.dim())
        return tensor.permute(order).contiguous().permute([order.index(dim) for dim in range(tensor.dim())])

    def answers(lay_out: Callable[[Tensor], Tensor]) -> list[Tensor]:
        inputs = [lay_out(tensor.detach()).requires_grad_() for tensor in subject.inputs()]
        outputs = [y for y in tensors_of(repeatable(subject.ours)(*inputs)) if y.requires_grad]
        cotangents = [lay_out(harness.cotangent(y)) for y in outputs]
        return [*outputs, *torch.autograd.grad(outputs, inputs, cotangents, materialize_grads=True)]

    assert_equal(answers(shuffled), answers(torch.clone), subject.precision)


def in_layout(tensor: Tensor, layout: Any) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if layout == "channels last" else {}
    return tensor.contiguous(memory_format=formats.get(tensor.dim(), torch.contiguous_format))


VIEWS = {
    "transposed": lambda base: base.detach().mT.contiguous().mT if base.dim() > 1 else base,
    "every second": lambda base: torch.stack([base.detach(), base.detach()], -1)[..., 0],
    "expanded": lambda base: base.detach()[:1].expand(base.shape),
}


@pytest.mark.parametrize("view", VIEWS)
def test_not_contiguous(subject: Subject, view: str, device: str) -> None:
    inputs = [VIEWS[view](tensor).requires_grad_() for tensor in subject.inputs(device=device)]
    assert_equal(answers(subject.ours, inputs), answers(subject.theirs, inputs), subject.precision)


def test_empty_batch(subject: Subject, device: str) -> None:
    """Where torch takes a batch of nothing, the same comes out; of all arguments, or of the first alone."""
    inputs = subject.inputs(device=device)
    for emptied in (inputs[:1], [tensor for tensor in inputs if tensor.shape[:1] == inputs[0].shape[:1]]):
        empty = [x.detach()[:0].requires_grad_() if any(x is e for e in emptied) else x for x in inputs]
        try:
            expected = answers(subject.theirs, empty)
        except (RuntimeError, ValueError, IndexError):
            continue
        assert_equal(answers(subject.ours, empty), expected, subject.precision)


def test_meta(subject: Subject) -> None:
    """Shapes and types without data."""
    inputs = [tensor.detach().to("meta").requires_grad_() for tensor in subject.inputs()]
    ours, theirs = answers(subject.ours, inputs), answers(subject.theirs, inputs)
    assert [(t.device, t.dtype, t.shape) for t in ours] == [(t.device, t.dtype, t.shape) for t in theirs]


def test_audit(subject: Subject, device: str) -> None:
    """No built-in layer runs in the forward, the backward and the double backward."""
    inputs = subject.inputs(device=device)
    with torchfromscratch.audit():
        outputs = [y for y in tensors_of(subject.ours(*inputs)) if y.requires_grad]
        gradients = torch.autograd.grad(
            outputs, inputs, [torch.ones_like(y) for y in outputs], create_graph=True, materialize_grads=True
        )
        sources = [gradient for gradient in gradients if gradient.requires_grad]
        if sources:
            torch.autograd.grad(sources, inputs, [torch.ones_like(g) for g in sources], allow_unused=True)


def _jvp(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The derivative of a scalar along a direction in which all arguments move."""
    return lambda *x: torch.func.jvp(function, x, tuple(map(harness.cotangent, x)))[1]


def _grad(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Σ of the squared gradients of a scalar by its first three arguments."""
    return lambda *x: sum(
        [gradient.square().sum() for gradient in torch.func.grad(function, tuple(range(len(x)))[:3])(*x)]
    )


def _vmap(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of two samples that are the same."""
    return lambda *x: torch.func.vmap(function, randomness="same")(*[torch.stack([tensor, tensor]) for tensor in x])


# Each is of a scalar function. torch.func.functionalize knows no torch.autograd.Function, whoever wrote it.
TRANSFORMS: dict[str, Callable[[Callable[..., Tensor]], Callable[..., Any]]] = {
    "jvp of jvp": lambda f: _jvp(_jvp(f)),
    "jvp of grad": lambda f: _jvp(_grad(f)),
    "grad of jvp": lambda f: _grad(_jvp(f)),
    "grad of grad": lambda f: _grad(_grad(f)),
    "vmap of grad": lambda f: _vmap(_grad(f)),
    "vmap of jvp": lambda f: _vmap(_jvp(f)),
    "jacfwd of jacrev": lambda f: torch.func.jacfwd(torch.func.jacrev(f), randomness="same"),
    "jacrev of jacfwd": lambda f: torch.func.jacrev(torch.func.jacfwd(f, randomness="same")),
    "linearize": lambda f: lambda *x: torch.func.linearize(f, *x)[1](*map(harness.cotangent, x)),
}
AT_ONCE = ("jvp of jvp", "vmap of grad", "jacfwd of jacrev")  # each transform, and the rest behind the slow marker


@pytest.mark.parametrize("grad_mode", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no_grad", "grad"])
@pytest.mark.parametrize(
    "transform", [pytest.param(name, marks=[pytest.mark.slow] * (name not in AT_ONCE)) for name in TRANSFORMS]
)
def test_audit_under_transforms(subject: Subject, transform: str, grad_mode: bool) -> None:
    """Nor under a transform of torch.func, or two, with grad mode off as well as on."""
    if transform == "linearize" and subject.name == "GRU packed both ways":
        pytest.skip("torch records no batch_sizes, of torch.nn.GRU neither")
    function = loss(repeatable(subject.ours))
    inputs = [tensor.detach() for tensor in subject.inputs()]
    with torch.set_grad_enabled(grad_mode), torchfromscratch.audit():
        TRANSFORMS[transform](function)(*inputs)


def test_leave_out_names_tests() -> None:
    """A misspelt name in a case's `leave_out` would leave nothing out."""
    names = {*globals(), *vars(test_modules), *vars(test_saved)}  # cases are put through all of these files
    tests = {name.removeprefix("test_") for name in names if name.startswith("test_")}
    for case in harness.subjects():
        assert not set(case.leave_out) - tests - {EVERY_TEST}, case.name
