"""`torchfromscratch.explain`: a layer at given inputs, or a function of one's own beside what is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.checking import layers, modules
from torchfromscratch.explaining import command
from torchfromscratch.explaining.arguments import CannotExplainError, Gradient, build, has_numbers, held_by
from torchfromscratch.explaining.comparison import compare
from torchfromscratch.explaining.explanation import Explanation

LIBRARIES = ("torch", "torchfromscratch")


def explain(
    layer: Any,
    inputs: Sequence[Any] | Tensor | None = None,
    *,
    like: Any = None,
    options: Mapping[str, Any] | None = None,
    grad_output: Tensor | None = None,
    seed: int = 0,
) -> Explanation:
    """Every number of one small forward and backward pass, and where it came from.

        torchfromscratch.explain("conv2d")                                    # an example
        torchfromscratch.explain(F.conv2d, (x, w), options={"stride": 2})     # at inputs of yours
        torchfromscratch.explain(nn.BatchNorm2d(3), (x,))
        torchfromscratch.explain(MyConv2d.apply, like="conv2d")               # yours beside the right numbers
        torchfromscratch.explain(MyFunction.apply, (x, w))                    # beside finite differences

    `str` of what comes back reads as text, a notebook shows it as a page to step through, `figure()` is a picture.

    `layer` is a name, a function of torch.nn.functional or of torchfromscratch.functional, a module of torch.nn or of
    torchfromscratch.nn, or a function of your own: `Function.apply`, a function or a module. `inputs` are what it is
    called with, by position, and `options` other arguments by name. `like` says which layer your own function should
    be, as for `check`, whose report is part of what is shown; without `inputs`, the smallest wrong case is shown.
    `grad_output` is dL/dy, drawn from `seed` if it is not given.

    Raises CannotExplainError, or check's CannotCheckError, if the inputs are too large to read or do not fit the layer.
    """
    if isinstance(inputs, str):
        raise CannotExplainError(f"inputs are tensors, as (x, w), but got {inputs!r}: say like={inputs!r}")
    inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
    if inputs is not None and not has_numbers(dict(enumerate(inputs))):
        raise CannotExplainError("there are no numbers to show in an empty tensor")
    options, gradient = dict(options or {}), Gradient(grad_output, seed)
    known = None if like is not None else _library_layer(layer)
    if known is None:
        return compare(layer, like, inputs, options, gradient)
    name, held = known
    if inputs is None:
        return _example(name)
    arguments = held | options
    arguments |= _by_position(name, inputs, arguments)
    explanation = build(name, arguments, gradient)
    if explanation is not None:
        return explanation
    function = layer if isinstance(layer, torch.nn.Module) else getattr(functional, name)
    return compare(function, None, inputs, options, gradient)


def _library_layer(layer: Any) -> tuple[str, dict[str, Any]] | None:
    """The name of a layer of torch's or of this package's, and the arguments that a module holds; None for others."""
    if isinstance(layer, str):
        return layers.find(layer).name, {}
    if isinstance(layer, torch.nn.Module):
        name = modules.layer_name(layer) if type(layer).__module__.split(".")[0] in LIBRARIES else None
        return None if name is None else (name, held_by(layer, name))
    name = getattr(layer, "__name__", "")
    homes = (functional, torch.nn.functional, torch)
    is_library = any(getattr(home, name, None) is layer for home in homes)
    return (name, {}) if is_library and name in layers.LAYERS else None


def _by_position(name: str, inputs: Sequence[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the inputs are, in torch.nn.functional's order, those that are known left out."""
    layer = layers.LAYERS[name]
    takes = [argument for argument in layer.arguments if argument not in known]
    if len(inputs) > len(takes):
        raise CannotExplainError(f"{name} takes {', '.join(takes)}, and {len(inputs)} inputs were given")
    found = dict(zip(takes, inputs, strict=False))
    missing = [argument for argument in takes[len(inputs) :] if argument not in layer.defaults]
    if missing:
        raise CannotExplainError(f"{name} takes {', '.join(takes)}: {', '.join(missing)} was not given")
    return found


def _example(name: str) -> Explanation:
    """What `torchfromscratch explain NAME` shows."""
    known = {"scaled_dot_product_attention": "attention", "lstm_cell": "lstm"}.get(name, name)
    if known not in command.LAYERS:
        raise CannotExplainError(f"{name} has no example: give inputs")
    return command.example(known)
