"""Turn a finished model into one whose layers are written by hand, and back, without touching its data.

Each of our modules subclasses one of torch.nn and adds no state of its own. So a layer is converted by giving
the very same object another class: parameters, buffers, hooks, attributes and whoever shares the module notice
nothing. A module with a forward of its own, which may call torch itself, gets a subclass of its class whose
forward runs inside `from_scratch()`.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from abc import ABCMeta
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.fx
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import is_parametrized

from torchfromscratch import _torch_private as private
from torchfromscratch import nn
from torchfromscratch.from_scratch import from_scratch

__all__ = ["ConversionReport", "conversion_report", "convert"]

M = TypeVar("M", bound=torch.nn.Module)
ModuleClass = type[torch.nn.Module]

# torch.nn's class of each of ours: the one that it is derived from.
_BUILT_IN: dict[ModuleClass, ModuleClass] = {
    ours: next(base for base in ours.__mro__ if base.__module__.startswith("torch.nn."))
    for ours in vars(nn).values()
    if isinstance(ours, type) and issubclass(ours, torch.nn.Module) and ours.__module__.startswith(nn.__name__)
}
_BY_HAND = {built_in: ours for ours, built_in in _BUILT_IN.items()}

# torch.nn's modules in these files are no layers: they hold others, or name other sizes.
_NO_LAYERS = {f"torch.nn.modules.{file}" for file in ("container", "flatten", "module")} | {
    "torch.ao.nn.quantized.modules.functional_modules"
}
_COMPOSED = "torch.nn.modules.transformer"  # made of layers, but for the activations that it calls itself


def convert(model: M, to: Literal["scratch", "torch"] = "scratch") -> M:
    """Replace every torch.nn layer of `model` by the hand-written one, in place, and return the model.

    Parameters, buffers, hooks and attributes stay the very same objects, so that saved weights load and training
    goes on with the same optimizer. What a module's own forward calls in torch or torch.nn.functional runs by
    hand as well, as in `torchfromscratch.from_scratch`. `to="torch"` goes back.

    Some layers are left alone, with a warning: those that override torch.nn's forward, unless the forward of a
    module around them runs by hand; those inside TorchScript; quantized ones, with the pooling and activations
    between them; those that torchfromscratch.nn does not have. `torchfromscratch.conversion_report(model)` tells
    what became of each module.

    Raises TypeError if `model` is no module, ValueError for another `to`.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"convert needs a torch.nn.Module, but got {type(model).__name__}")
    if to not in ("scratch", "torch"):
        raise ValueError(f"convert needs to='scratch' or to='torch', but got to={to!r}")
    integers = _computes_with_integers(model)
    for module in list(model.modules()):
        _become(module, _plan(module, integers)[0] if to == "scratch" else _plan_back(module))
    if to == "scratch" and (left := conversion_report(model).uncovered):
        warnings.warn(f"convert left built-in layers in the model:\n{_lines(left)}", stacklevel=2)
    return model


@dataclass
class ConversionReport:
    """What became of a model's modules, by their names in the model.

    `by_hand` are layers of ours, `own_forward` modules whose own calls of torch run by hand. `left` says why
    a layer is none of ours; `uncovered` are those of them that run by no forward of `own_forward` either.
    """

    by_hand: dict[str, str] = field(default_factory=dict)
    own_forward: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    uncovered: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        chapters = {
            "layers by hand": self.by_hand,
            "modules whose own calls of torch run by hand": self.own_forward,
            "layers left": self.left,
        }
        return "\n".join(f"{len(rows)} {title}\n{_lines(rows)}".rstrip() for title, rows in chapters.items())


def conversion_report(model: torch.nn.Module) -> ConversionReport:
    """Which layers of `model` are by hand and which are not, and why; before `convert` or after it."""
    report = ConversionReport()
    integers = _computes_with_integers(model)
    for name, module in _open_modules(model):
        cls = type(module)
        converted, obstacle = _plan(module, integers)
        is_layer = _first(cls, _BY_HAND) is not None
        if _first(cls, _BUILT_IN):
            report.by_hand[name] = cls.__name__
        elif obstacle or (is_layer and converted is not cls):
            report.left[name] = f"{cls.__name__} {obstacle or 'is not converted'}"
            covered = any(_is_inside(name, outer) for outer in report.own_forward)
            if not (covered and obstacle in (_OVERRIDES, _SET, _INTEGERS)):
                report.uncovered[name] = report.left[name]
        elif converted is cls and _original_class(cls) is not cls:
            report.own_forward[name] = cls.__name__
    return report


_SCRIPTED = "is TorchScript and cannot be changed; convert the model first and use torch.jit.trace"
_OVERRIDES = "overrides the forward of torch.nn's and is kept as it is"
_SET = "has its forward set on the module itself and is kept as it is"
_UNKNOWN = "has no counterpart in torchfromscratch.nn; only what it calls runs by hand, where there is one for that"

_INTEGERS = "may be given integers, since the model is quantized"


def _plan(module: torch.nn.Module, integers: bool) -> tuple[ModuleClass, str]:
    """The class with which `module` runs by hand, and what stands in the way of its being one of our layers."""
    cls = type(module)
    if integers and _first(cls, _BY_HAND) and next(module.parameters(), None) is None:
        return cls, _INTEGERS
    if isinstance(module, torch.jit.ScriptModule):
        return cls, _SCRIPTED
    if "forward" in vars(module) and not private.is_compiled_wrapper(module):
        return cls, _SET
    if is_parametrized(module):
        base, obstacle = _by_hand(cls.__bases__[0])
        return _rebase(cls, base), obstacle
    return _by_hand(cls)


def _plan_back(module: torch.nn.Module) -> ModuleClass:
    cls = type(module)
    return _rebase(cls, _original_class(cls.__bases__[0])) if is_parametrized(module) else _original_class(cls)


def _by_hand(cls: ModuleClass) -> tuple[ModuleClass, str]:
    """The class by hand of an unconverted or converted class, and the obstacle if it is a layer and there is none."""
    if _first(cls, _BUILT_IN):
        return cls, ""
    built_in = _first(cls, _BY_HAND)
    if built_in is None:
        return _with_calls_by_hand(_original_class(cls))
    ours = _BY_HAND[built_in]
    if cls is built_in:
        return ours, ""
    computes = {"forward", "__call__", *_helpers(ours)}
    own = [base for base in cls.__mro__[: cls.__mro__.index(built_in)] if computes & vars(base).keys()]
    if own:
        return cls, _OVERRIDES
    return _subclass(cls, (cls, ours), _becoming(cls)), ""


def _helpers(ours: ModuleClass) -> set[str]:
    """The methods besides forward with which one of our classes replaces what torch.nn's computes."""
    names = {name for base in ours.__mro__ if base.__module__.startswith(nn.__name__) for name in vars(base)}
    return {name for name in names if not name.startswith("__") and inspect.isroutine(getattr(ours, name))}


def _becoming(cls: ModuleClass) -> dict[str, Any]:
    """What a lazy class becomes when it knows its sizes, by hand."""
    become = cls.cls_to_become if issubclass(cls, LazyModuleMixin) else None
    return {} if become is None else {"cls_to_become": _by_hand(become)[0]}


def _with_calls_by_hand(cls: ModuleClass) -> tuple[ModuleClass, str]:
    """A subclass of `cls` whose forward is inside from_scratch(), if `cls` has a forward of its own."""
    home = "user" if issubclass(cls, torch.fx.GraphModule) else cls.forward.__module__
    if cls is torch.nn.Identity or home in _NO_LAYERS:
        return cls, ""
    obstacle = _UNKNOWN if home.startswith(("torch.nn.modules", "torch.ao.nn")) and home != _COMPOSED else ""
    if home.startswith("torch.") and not home.startswith("torch.nn.modules"):
        return cls, obstacle

    @functools.wraps(cls.forward)
    def forward_by_hand(self: Any, *args: Any, **kwargs: Any) -> Any:
        with from_scratch():
            return super(converted, self).forward(*args, **kwargs)

    namespace = {"forward": forward_by_hand}
    if issubclass(cls, torch.fx.GraphModule):
        namespace |= _graph_methods(cls)
    converted = _subclass(cls, (cls,), namespace)
    return converted, obstacle


def _graph_methods(cls: ModuleClass) -> dict[str, Any]:
    """A traced graph writes its code into its class, and copies itself by its class."""

    def recompile(self: Any) -> Any:
        with _as(self, cls):
            return self.recompile()

    def deepcopy(self: Any, memo: Any) -> Any:
        with _as(self, cls):
            return _rebuilt(self.__deepcopy__, (memo,))

    return {"recompile": recompile, "__deepcopy__": deepcopy}


def _original_class(cls: ModuleClass) -> ModuleClass:
    """The class that was converted into `cls`, or `cls` if it was not."""
    if cls in _BUILT_IN:
        return _BUILT_IN[cls]
    return vars(cls).get("_converted_from", cls)


def _subclass(cls: ModuleClass, bases: tuple[type, ...], namespace: dict[str, Any]) -> ModuleClass:
    """The one class that goes by the name of `cls` and runs by hand; its modules are pickled by that name."""
    if cls in _SUBCLASSES:
        return _SUBCLASSES[cls]

    def reduce(self: Any, protocol: Any) -> Any:
        with _as(self, cls):
            new, arguments, *rest = self.__reduce_ex__(protocol)
        return _rebuilt, (new, arguments), *rest

    named = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    own = {"_converted_from": cls, "__reduce_ex__": reduce}
    has_hook = any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1])
    bases = (_SkipInitSubclass, *bases) if has_hook else bases
    _SUBCLASSES[cls] = _make_class(cls, cls.__name__, bases, {**named, **own, **namespace})
    return _SUBCLASSES[cls]


_SUBCLASSES: dict[ModuleClass, ModuleClass] = {}


class _SkipInitSubclass:
    """Keeps a new subclass from the `__init_subclass__` of its bases: it is no model of its own."""

    def __init_subclass__(cls) -> None:
        pass


def _rebase(cls: ModuleClass, base: ModuleClass) -> ModuleClass:
    """The class that torch.nn.utils.parametrize made for one module, on another base."""
    if cls.__bases__ == (base,):
        return cls
    namespace = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return _make_class(cls, f"Parametrized{base.__name__}", (base,), namespace)


def _make_class(cls: ModuleClass, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> ModuleClass:
    """A class made without calling the user's metaclass, which might keep it in a register of models."""
    metaclass: Any = type(cls)
    base: Any = ABCMeta if issubclass(metaclass, ABCMeta) else type
    return base.__new__(metaclass, name, bases, namespace)


def _become(module: torch.nn.Module, cls: ModuleClass) -> None:
    """Change the module's class, also where it forbids attributes to be set."""
    object.__setattr__(module, "__class__", cls)


def _rebuilt(new: Callable[..., torch.nn.Module], arguments: tuple) -> torch.nn.Module:
    """A copy or an unpickled module of the unconverted class, converted."""
    module = new(*arguments)
    _become(module, _by_hand(type(module))[0])
    return module


@contextmanager
def _as(module: torch.nn.Module, cls: ModuleClass) -> Iterator[None]:
    """Inside, the module is of its unconverted class."""
    converted = type(module)
    _become(module, cls)
    try:
        yield
    finally:
        _become(module, converted)


def _first(cls: ModuleClass, classes: Collection[ModuleClass]) -> ModuleClass | None:
    """The nearest of `classes` that `cls` is or is derived from."""
    return next((base for base in cls.__mro__ if base in classes), None)


def _open_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """All modules with their names, but for those inside a scripted or a quantized one."""
    closed: list[str] = []
    for name, module in model.named_modules():
        if any(_is_inside(name, outer) for outer in closed):
            continue
        if isinstance(module, torch.jit.ScriptModule) or _is_quantized(module):
            closed.append(name)
        yield name, module


def _is_quantized(module: torch.nn.Module) -> bool:
    home = type(module).__module__
    return home.startswith("torch.ao.nn") and "quantized" in home and home not in _NO_LAYERS


def _computes_with_integers(model: torch.nn.Module) -> bool:
    """Whether quantized tensors go through the model: dynamically quantized layers take and give floats."""
    return any(_is_quantized(module) and "dynamic" not in type(module).__module__ for _, module in _open_modules(model))


def _is_inside(name: str, outer: str) -> bool:
    """Whether the module `name` is a part of the module `outer`."""
    return name.startswith(f"{outer}." if outer else "")


def _lines(rows: dict[str, str]) -> str:
    return "\n".join(f"  {name or '(the model)'}: {row}" for name, row in rows.items())
