"""Every private name of torch that the package uses: what it is for, and what is done without it.

No other file holds one, but for the hooks, which are spelt where they are overridden. torch 2.6 to 2.14 have all of
them. A name that a later one lacks is looked up here, once, and answered by a fallback that is right, if slower, or by
an error that says which name is missing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.modules.adaptive import _ASMoutput as AdaptiveSoftmaxOutput  # what its layer answers with
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # the bases of ours, without which there are no layers
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode  # by which audit sees kernels

__all__ = ["AdaptiveSoftmaxOutput", "BatchNorm", "InstanceNorm", "TorchDispatchMode"]

# Methods of torch.nn's modules that ours override or call, for which torch.nn's would run a built-in layer in silence.
HOOKS = {
    "_conv_forward": "Conv1d Conv2d Conv3d",
    "_output_padding": "ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "_check_input_dim": "BatchNorm1d BatchNorm2d BatchNorm3d CircularPad1d CircularPad2d CircularPad3d",
    "_apply_instance_norm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "_get_full_log_prob": "AdaptiveLogSoftmaxWithLoss",
    "_update_flat_weights": "RNNBase",
    "_ff_block": "TransformerEncoderLayer TransformerDecoderLayer",
    "_sa_block": "TransformerEncoderLayer",
}


def _calls(cls: type, hook: str) -> bool:
    """Whether a method of torch's class calls another that has this name; what others put in its place may."""
    methods = [inspect.unwrap(value) for base in cls.__mro__ for value in vars(base).values() if isfunction(value)]
    return any(hook in method.__code__.co_names or method.__module__.split(".")[0] != "torch" for method in methods)


for _hook, _names in HOOKS.items():
    for _name in _names.split():
        if not (hasattr(getattr(torch.nn, _name), _hook) and _calls(getattr(torch.nn, _name), _hook)):
            raise ImportError(
                f"torch {torch.__version__} has no torch.nn.{_name}.{_hook}, without which torchfromscratch cannot "
                f"compute {_name} by hand: use a version of torch that has it"
            )

# How torch's Python functions ask whether a mode wants to answer in their place: `modes` has them not ask.
OVERRIDE_CHECKS = {"has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"}

if not all(map(functools.partial(hasattr, torch.overrides), OVERRIDE_CHECKS)):
    raise ImportError(f"torch {torch.__version__} asks for overrides by other names than {sorted(OVERRIDE_CHECKS)}")

FALLBACKS: dict[str, Any] = {}


def _find(name: str, fallback: Any) -> Any:
    """The part of torch that has this name, or the fallback."""
    FALLBACKS[name] = fallback
    try:
        return functools.reduce(getattr, name.split("."), torch)
    except AttributeError:
        return fallback


def _require(name: str) -> Any:
    def missing(*_: Any) -> NoReturn:
        raise NotImplementedError(f"torch {torch.__version__} has no torch.{name}, without which this cannot be done")

    return _find(name, missing)


# Whether torch.export traces what is computed now, if torch.compile or torch.export does.
if torch.__version__ < "2.7":  # which tells no export that Dynamo traces

    def is_exporting() -> bool:
        return not torch.compiler.is_dynamo_compiling()

elif "2.8" <= torch.__version__ < "2.12":  # whose Dynamo answers True for torch.compile as well, but reads the flag

    def is_exporting() -> bool:
        return torch.compiler._is_exporting_flag

else:
    is_exporting = torch.compiler.is_exporting


# What tensors stand for


def _has_no_storage(tensor: Tensor) -> bool:
    """As a tensor has none that torch.func wraps, under vmap, grad or jvp."""
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return True
    return False


# Whether a tensor stands for many, by vmap of torch.func or of torch.autograd, or is wrapped by torch.func.
is_batchedtensor = _find("_C._functorch.is_batchedtensor", _has_no_storage)
is_legacy_batchedtensor = _find("_C._functorch.is_legacy_batchedtensor", _has_no_storage)
is_functorch_wrapped_tensor = _find("_C._functorch.is_functorch_wrapped_tensor", _has_no_storage)

# Whether a tensor may not be let go of: it shows another's memory, or hooks wait for its gradient. Else, as if so.
is_view = _find("Tensor._is_view", lambda tensor: True)


def has_hooks(tensor: Tensor) -> bool:
    return bool(getattr(tensor, "_backward_hooks", True))


# A tensor in another shape, to autograd no view. Else a copy.
unsafe_view = _find("ops.aten._unsafe_view.default", lambda tensor, shape: tensor.reshape(shape).clone())


def _one_by_one(name: str) -> Callable[..., list[Tensor]]:
    def operation(tensors: list[Tensor], *operands: Any, **options: Any) -> list[Tensor]:
        each = [operand if isinstance(operand, (list, tuple)) else [operand] * len(tensors) for operand in operands]
        return [getattr(tensor, name)(*args, **options) for tensor, *args in zip(tensors, *each, strict=True)]

    return operation


# An operation of many tensors, in a few launches on a GPU. Else one after the other.
foreach_add = _find("_foreach_add", _one_by_one("add"))
foreach_add_ = _find("_foreach_add_", _one_by_one("add_"))
foreach_addcdiv_ = _find("_foreach_addcdiv_", _one_by_one("addcdiv_"))
foreach_addcmul_ = _find("_foreach_addcmul_", _one_by_one("addcmul_"))
foreach_copy_ = _find("_foreach_copy_", _one_by_one("copy_"))
foreach_div_ = _find("_foreach_div_", _one_by_one("div_"))
foreach_lerp_ = _find("_foreach_lerp_", _one_by_one("lerp_"))
foreach_maximum_ = _find("_foreach_maximum_", _one_by_one("clamp_min_"))
foreach_mul_ = _find("_foreach_mul_", _one_by_one("mul_"))
foreach_neg = _find("_foreach_neg", _one_by_one("neg"))
foreach_sqrt = _find("_foreach_sqrt", _one_by_one("sqrt"))


def causal_mask(bias: Any, device: torch.device) -> Tensor:
    """The mask that a bias of torch.nn.attention.bias stands for. Else from what it says of itself."""
    if hasattr(bias, "_materialize"):
        return bias._materialize(device)
    shift = bias.seq_len_kv - bias.seq_len_q if bias.variant.name == "LOWER_RIGHT" else 0
    return torch.ones(bias.seq_len_q, bias.seq_len_kv, dtype=torch.bool, device=device).tril(shift)


def frame(convolution: Any) -> list[int]:
    """What a convolution pads each side with beforehand, the last dimension first. Else an AttributeError."""
    return convolution._reversed_padding_repeated_twice


# Who differentiates


def _is_in_forward_mode() -> bool:
    one = torch.zeros(())
    try:
        forward_ad.make_dual(one, one)
    except RuntimeError:  # no level exists
        return False
    return True


@contextmanager
def _set_forward_mode(enabled: bool) -> Iterator[None]:
    grad_enabled = torch.is_grad_enabled()
    with torch.inference_mode(not enabled), torch.set_grad_enabled(grad_enabled and enabled):
        yield


# The transform of torch.func that runs, or None. Else each layer is a Function, always.
peek_interpreter_stack = _find("_C._functorch.peek_interpreter_stack", lambda: "unknown")

# The innermost level of forward mode, −1 outside. Else a dual tensor is tried.
if isinstance(_find("autograd.forward_ad._current_level", _is_in_forward_mode), int):

    def is_in_forward_mode() -> bool:
        return forward_ad._current_level >= 0
else:
    is_in_forward_mode = _is_in_forward_mode

# Forward mode on or off, as in a `jvp`, which torch calls with it off. Else by inference mode, which has none.
set_forward_mode = _find("autograd.forward_ad._set_fwd_grad_enabled", _set_forward_mode)

# Whether autocast is on for some kind of device. Else each is asked.
is_any_autocast_enabled = _find("_C._is_any_autocast_enabled", lambda: True)

# The node whose backward runs. Else audit names none.
current_autograd_node = _find("_C._current_autograd_node", lambda: None)


def forward_class(node: Any) -> Any:
    """The Function whose node this is, which check names. Else an AttributeError."""
    return node._forward_cls


# Who wants to answer in a function's place. Else Dynamo hands modes and subclasses the arithmetic inside, as torch 2.6
# does modes. The stack of modes has no other access.
is_torch_function_enabled = _find("_C._is_torch_function_enabled", lambda: False)
is_torch_function_mode_enabled = _find("_C._is_torch_function_mode_enabled", lambda: False)
function_modes: Callable[[], list[Any]] = _require("overrides._get_current_function_mode_stack")
pop_mode: Callable[[], Any] = _require("overrides._pop_mode")
push_mode: Callable[[Any], None] = _require("overrides._push_mode")

# How many modes see each operation, as that which keeps results for a checkpoint. Else as if there were one.
count_dispatch_modes = _find("_C._len_torch_dispatch_stack", lambda: 1)


def is_device_context(mode: Any) -> bool:
    """Whether a mode is that of torch.set_default_device, which torch looks for below all others."""
    return type(mode).__module__ == "torch.utils._device"


def is_compiled_wrapper(module: torch.nn.Module) -> bool:
    """Whether torch.compile made the module, whose forward calls the one that it was given."""
    return type(module).__module__.startswith("torch._dynamo")


def set_fast_paths(enabled: bool) -> None:
    """torch.backends.mha.set_fastpath_enabled, which torch.compile refuses to trace."""
    if hasattr(torch.backends.mha, "_is_fastpath_enabled"):
        torch.backends.mha._is_fastpath_enabled = enabled
    else:
        torch.backends.mha.set_fastpath_enabled(enabled)


def constant_to_dynamo(function: Callable[..., Any]) -> Callable[..., Any]:
    """As torch.compiler.assume_constant_result, for which Dynamo would be imported: it calls what it would trace."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# What the tools need: trees of tensors, and what takes long to import

tree_map = _require("utils._pytree.tree_map")
tree_leaves = _require("utils._pytree.tree_leaves")


def compiler_error() -> type[Exception]:
    """What torch.compile raises where it finds no compiler. Else any error."""
    return _find("_dynamo.exc.BackendCompilerFailed", RuntimeError)


def test_databases() -> tuple[Any, Any, Any]:
    """torch's own samples of operators and modules, and what says of a module's error when it is raised."""
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

    return op_db, module_db, ModuleErrorEnum


def random_samples(module: torch.nn.Module) -> Tensor | None:
    """The random numbers that fractional max pooling was built with; drawn anew where there are none."""
    return getattr(module, "_random_samples", None)


def flat_weights(module: torch.nn.RNNBase) -> list[Tensor]:
    """The weights of recurrent layers, as its last update found them. Else as they are now."""
    return getattr(module, "_flat_weights", None) or [weight for scan in module.all_weights for weight in scan]


def operation_name(function: Any) -> str:
    """An operation's name without its library and its overload."""
    return function._schema.name.rpartition("::")[2]


def mutated_arguments(function: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation overwrites."""
    mutated = []
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            mutated.append(args[position] if position < len(args) else kwargs.get(argument.name))
    return mutated


def storage_id(tensor: Tensor) -> int:
    """Which memory a tensor is in, also one without memory."""
    return tensor.untyped_storage()._cdata
