"""What is checked: a function of somebody else's, and how it is called."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchfromscratch.checking import modules
from torchfromscratch.checking.layers import CannotCheckError, Layer

# What people call arguments, where torch.nn.functional calls them otherwise. A name counts for the first that the
# layer has.
ALIASES = {
    "input": "x X inp inputs data image images z logits pred preds prediction y_pred yhat y_hat scores idx indices ids",
    "weight": "w W weights kernel kernels filter filters gamma γ g scale_weight table emb embedding",
    "bias": "b B beta β biases",
    "stride": "s strides step",
    "padding": "p pad pads",
    "kernel_size": "k kernel ksize size window pool_size kernel_shape",
    "output_size": "size out_size osize",
    "dilation": "d dilations",
    "groups": "num_groups",
    "target": "y t labels label targets target_ y_true true",
    "dim": "axis",
    "negative_slope": "slope alpha a",
    "eps": "epsilon e",
    "running_mean": "mean rm",
    "running_var": "var variance rv",
    "num_groups": "groups G",
    "query": "q Q",
    "key": "k K",
    "value": "v V",
    "attn_mask": "mask",
    "is_causal": "causal",
    "hx": "h h0 h_prev hprev hidden state",
    "cx": "c c0 c_prev cprev cell",
    "w_ih": "W_ih wx Wx w_x weight_ih U",
    "w_hh": "W_hh wh Wh w_h weight_hh",
    "b_ih": "bx bias_ih",
    "b_hh": "bh bias_hh",
    "mask": "m keep",
    "p": "prob drop rate",
}


UNUSED = ("size_average", "reduce")  # arguments that torch.nn.functional keeps for old programs


@dataclass(frozen=True)
class Subject:
    """A function, the arguments of the layer that it takes, in its order, and its name in reports.

    `pairs`: the state of an LSTM is one argument, (hx, cx). `needs` are tensors that it does not do without.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...]
    name: str
    by_keyword: bool = False
    pairs: bool = False
    needs: tuple[str, ...] = ()

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        given = {name: arguments[name] for name in self.takes}
        if self.pairs:
            given["hx"] = (given["hx"], given.pop("cx"))
        return self.function(**given) if self.by_keyword else self.function(*given.values())

    def text(self) -> str:
        """The call, in Python."""
        names = {name: f"{name}={name}" if self.by_keyword else name for name in self.takes}
        if self.pairs:
            names["hx"] = "(hx, cx)"
            del names["cx"]
        return f"{self.name}({', '.join(names.values())})"


def subject(function: Any, layer: Layer) -> Subject:
    """`function` as something that takes arguments of the layer."""
    if modules.is_module(function):
        return _of_module(function, layer)
    function = as_function(function)
    try:
        takes, pairs = _arguments(function, layer)
    except CannotCheckError:
        raise
    except (TypeError, ValueError):  # a builtin tells no signature, and has torch's names
        return Subject(function, layer.arguments, name_of(function), by_keyword=True)
    return Subject(function, takes, name_of(function), pairs=pairs)


def _of_module(module: Any, layer: Layer) -> Subject:
    """A module as a function of its inputs and parameters; a class of modules, made anew for each case."""
    is_class = inspect.isclass(module)
    names = [] if is_class else [*modules.parameter_names(module).values()]
    known = [name for name in layer.arguments if name not in names and name not in UNUSED]
    count = len([p for p in parameters(module.forward) if p.default is p.empty]) - is_class
    pairs = layer.name == "lstm_cell"
    inputs = known[: 3 if pairs else 2] if layer.name.endswith("_cell") else known[:count]
    if is_class:
        made_of = inspect.signature(module).parameters
        names = [name for name in layer.arguments if name in made_of or name in modules.TENSORS]
        names = [
            name
            for name in names
            if name not in inputs and (name != "bias" or "bias" in made_of or "norm" in layer.name)
        ]

    def call(*given: Any) -> Any:
        arguments = dict(zip(takes, given, strict=True))
        made = modules.construct(module, layer.name, {**layer.defaults, **arguments}) if is_class else module
        passed = [arguments[name] for name in inputs]
        return modules.call_module(made, [passed[0], (passed[1], passed[2])] if pairs else passed, arguments)

    takes = tuple(name for name in layer.arguments if name in inputs or name in names)
    name = name_of(module) if is_class else type(module).__name__
    return Subject(call, takes, name, needs=() if is_class else tuple(names))


def as_function(function: Any) -> Any:
    """A Function's apply, where its class was given."""
    if inspect.isclass(function) and issubclass(function, torch.autograd.Function):
        function = function.apply
    if not callable(function):
        raise CannotCheckError(f"{function!r} cannot be called: give a function, Function.apply or a module")
    return function


def input_names(function: Any, count: int) -> tuple[str, ...]:
    """What the function calls its arguments."""
    try:
        names = [p.name for p in parameters(as_function(function)) if p.kind is not p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        names = []
    return tuple([*names, *(f"input_{i}" for i in range(len(names), count))][:count])


def name_of(function: Any) -> str:
    """As a reader calls it: MyConv2d.apply."""
    owner = getattr(function, "__self__", None)
    if inspect.isclass(owner):
        return f"{owner.__name__}.{function.__name__}"
    return getattr(function, "__name__", type(function).__name__)


def parameters(function: Any) -> Sequence[inspect.Parameter]:
    """The parameters that a call fills by position."""
    owner = getattr(function, "__self__", None)
    if inspect.isclass(owner) and issubclass(owner, torch.autograd.Function):
        old_style = owner.setup_context is torch.autograd.Function.setup_context
        found = list(inspect.signature(owner.forward).parameters.values())[1 if old_style else 0 :]
    else:
        found = list(inspect.signature(function).parameters.values())
    return [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]


def _arguments(function: Any, layer: Layer) -> tuple[tuple[str, ...], bool]:
    """The layer's argument at each position, by its name where that tells; and whether (h, c) is one argument."""
    found = parameters(function)
    if any(p.kind is p.VAR_POSITIONAL for p in found):
        return layer.arguments, False
    pairs = layer.name == "lstm_cell" and len(found) < 7 and "cx" not in [_argument(p.name, layer) for p in found]
    order = [name for name in layer.arguments if not (pairs and name == "cx")]
    by_position = [*order, *[""] * len(found)][: len(found)]
    by_name = [_argument(p.name, layer) or position for p, position in zip(found, by_position, strict=True)]
    named = [name for name in by_name if name]
    takes = list(itertools.takewhile(bool, by_name if len(set(named)) == len(named) else by_position))
    missing = [name for name in order if name not in layer.optional and name not in takes]
    surplus = [p for p in found[len(takes) :] if p.default is p.empty]
    if missing or surplus:
        raise CannotCheckError(
            f"{name_of(function)} takes ({', '.join(map(str, found))}), but {layer.name} is called as "
            f"({', '.join(layer.arguments)})"
        )
    if pairs:
        takes.insert(takes.index("hx") + 1, "cx")
    return tuple(takes), pairs


def _argument(name: str, layer: Layer) -> str | None:
    """The argument of the layer that goes by this name, None where none does."""
    if name in layer.arguments:
        return name
    known = [argument for argument, others in ALIASES.items() if name in others.split() and argument in layer.arguments]
    return known[0] if known else None
