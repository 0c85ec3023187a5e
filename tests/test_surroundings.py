"""What users put around a module, hooks, checkpoints, parametrisations, a new type, does what it does to torch.nn's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrizations, prune
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from tests import lacks
from tests import subjects as harness
from tests.cases import ModuleCase
from tests.subjects import assert_equal, tensors_of
from tests.test_modules import OURS, THEIRS, build, case, inputs_of

__all__ = ["case"]

Module = torch.nn.Module
Call = Callable[..., Any]


def doubled(values: Any) -> Any:
    """Twice each floating-point tensor of a structure, which stays what it is."""
    return pytree.tree_map(lambda v: v * 2 if isinstance(v, Tensor) and v.is_floating_point() else v, values)


def overwrite_output(module: Module, arguments: Any, output: Any) -> None:
    for tensor in tensors_of(output):
        if tensor.is_floating_point():
            tensor.mul_(2)


def weight_of(module: Module) -> str:
    """The name of the first of its own parameters that is a matrix, or more."""
    names = [name for name, parameter in module.named_parameters(recurse=False) if parameter.dim() > 1]
    return names[0] if names else pytest.skip("has no matrix of its own")


def hook_gradients(module: Module) -> None:
    for parameter in module.parameters():
        parameter.register_hook(doubled)
        parameter.register_post_accumulate_grad_hook(lambda changed: changed.grad.add_(1))


PREPARATIONS: dict[str, Callable[[Module], Any]] = {
    "forward hook that overwrites": lambda m: m.register_forward_hook(overwrite_output),
    "forward hook that replaces": lambda m: m.register_forward_hook(lambda _, arguments, output: doubled(output)),
    "forward pre-hook": lambda m: m.register_forward_pre_hook(lambda _, arguments: doubled(arguments)),
    "backward hook": lambda m: m.register_full_backward_hook(lambda _, grad_input, grad_output: doubled(grad_input)),
    "backward pre-hook": lambda m: m.register_full_backward_pre_hook(lambda _, grad_output: doubled(grad_output)),
    "hooks of parameters": hook_gradients,
    "weight norm": lambda m: parametrizations.weight_norm(m, weight_of(m)),
    "pruned": lambda m: prune.l1_unstructured(m, weight_of(m), amount=0.3),
}


def keep_on_cpu(call: Call, *inputs: Tensor) -> Any:
    with torch.autograd.graph.save_on_cpu():
        return call(*inputs)


KEPT = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default]


def keep_products(call: Call, *inputs: Tensor) -> Any:
    contexts = functools.partial(create_selective_checkpoint_contexts, KEPT)
    return checkpoint(call, *inputs, use_reentrant=False, context_fn=contexts)


WAYS: dict[str, Callable[..., Any]] = {
    "checkpoint": lambda call, *inputs: checkpoint(call, *inputs, use_reentrant=False),
    "selective checkpoint": keep_products,
    "reentrant checkpoint": lambda call, *inputs: checkpoint(call, *inputs, use_reentrant=True),
    "saved on the CPU": keep_on_cpu,
    "called with computed tensors": lambda call, *inputs: call(*[tensor * 1 for tensor in inputs]),
}


def answers(case: ModuleCase, module: Module, way: Callable[..., Any]) -> list[Tensor] | type[Exception]:
    """The outputs, and what a backward pass leaves in `grad`; or the type of the error."""
    inputs = inputs_of(case)

    def call(*tensors: Tensor) -> Any:
        return (case.call or harness.apply)(module, *tensors)

    torch.manual_seed(0)
    try:
        outputs = [output for output in tensors_of(way(call, *inputs)) if output.is_floating_point()]
        differentiable = [output for output in outputs if output.requires_grad]
        torch.autograd.backward(differentiable, [harness.cotangent(output) for output in differentiable])
    except RuntimeError as error:
        return type(error)
    gradients = [tensor.grad for tensor in (*inputs, *module.parameters())]
    return [*outputs, *[torch.empty(0) if gradient is None else gradient for gradient in gradients]]


def check(case: ModuleCase, prepare: Callable[[Module], Any], way: Callable[..., Any]) -> None:
    """As torch.nn's, where that does not raise."""
    found = []
    for nn in (OURS, THEIRS):
        module = build(case, nn)
        prepare(module)
        found.append(answers(case, module, way))
    ours, theirs = found
    if isinstance(theirs, type):
        return
    assert not isinstance(ours, type), ours
    assert_equal(ours, theirs, case.precision)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad", "ignore:Full backward hook is firing")
@pytest.mark.parametrize("prepare", PREPARATIONS.values(), ids=PREPARATIONS)
def test_prepared(case: ModuleCase, prepare: Callable[[Module], Any]) -> None:
    check(case, prepare, harness.apply)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_called(case: ModuleCase, way: Callable[..., Any]) -> None:
    if case.name == "RReLU" and way is not WAYS["called with computed tensors"]:
        pytest.skip("torch reads noise that nobody wrote, behind hooks of saved tensors")
    if case.name.startswith("GRU") and way is keep_products:
        pytest.skip("torch writes into the product that the checkpoint keeps")
    check(case, lambda module: None, way)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_train(strict: bool) -> None:
    if strict and (reason := lacks.strict_exports_told_from_compiling()):
        pytest.skip(reason)
    layers = [OURS.Conv2d(3, 4, 3), OURS.BatchNorm2d(4), OURS.GELU(), OURS.Flatten(), OURS.Linear(36, 2)]
    model, x = torch.nn.Sequential(*layers).double(), torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    program = torch.export.export(model, (x,), strict=strict).module()
    ours, again = [torch.autograd.grad(call(x).square().sum(), x)[0] for call in (model, program)]
    assert_equal([again], [ours])
    assert not any(buffer.requires_grad for buffer in model.buffers())
    model.eval()(x)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_running_statistics_move_under_torch_func_where_torchs_do(transform: Any) -> None:
    norms = [nn.InstanceNorm1d(3, track_running_stats=True).double() for nn in (OURS, THEIRS)]
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    slopes = [transform(lambda x, norm=norm: norm(x).pow(3).sum())(x) for norm in norms]
    assert_equal(*[[slope, norm.running_mean, norm.running_var] for slope, norm in zip(slopes, norms, strict=True)])


@pytest.mark.parametrize("before", ["nothing", "output", "output without gradients", "backward pass"])
def test_parameters_are_swapped_where_torchs_are(case: ModuleCase, before: str) -> None:
    """By `half()`, if torch.__future__ says so: a parameter that a graph holds cannot be."""

    def outcome(nn: Any) -> list[torch.dtype] | str:
        module = build(case, nn)
        with torch.set_grad_enabled(before != "output without gradients"):
            call = case.call or harness.apply
            output = None if before == "nothing" else tensors_of(call(module, *inputs_of(case)))  # alive until the swap
        if before == "backward pass":
            outputs = [tensor for tensor in output or () if tensor.requires_grad]
            torch.autograd.backward(outputs, [harness.cotangent(tensor) for tensor in outputs])
        try:
            module.half()
        except RuntimeError as error:
            return str(error)
        return [parameter.dtype for parameter in module.parameters()]

    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        assert outcome(OURS) == outcome(THEIRS)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
