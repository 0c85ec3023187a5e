"""Modules: as what is checked, and as what it should be like."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_DIMS = (1, 2, 3)
# The layer of each class of torch.nn
LAYERS: dict[str, str] = {
    **{f"Conv{n}d": f"conv{n}d" for n in _DIMS},
    **{f"ConvTranspose{n}d": f"conv_transpose{n}d" for n in _DIMS},
    **{f"{kind}Pool{n}d": f"{kind.lower()}_pool{n}d" for kind in ("Max", "Avg") for n in _DIMS},
    **{f"Adaptive{kind}Pool{n}d": f"adaptive_{kind.lower()}_pool{n}d" for kind in ("Max", "Avg") for n in _DIMS},
    **{f"BatchNorm{n}d": "batch_norm" for n in _DIMS},
    **{f"InstanceNorm{n}d": "instance_norm" for n in _DIMS},
    "Linear": "linear",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "MSELoss": "mse_loss",
    "LayerNorm": "layer_norm",
    "GroupNorm": "group_norm",
    "Embedding": "embedding",
    "RNNCell": "rnn_tanh_cell",
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
}
# What a module keeps as an attribute and a layer has as an option, or its tensors as a size
OPTIONS = [
    "stride",
    "padding",
    "dilation",
    "groups",
    "output_padding",
    "kernel_size",
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
    "output_size",
    "negative_slope",
    "dim",
    "reduction",
    "ignore_index",
    "label_smoothing",
    "eps",
    "num_groups",
    "normalized_shape",
    "padding_idx",
    "in_channels",
    "out_channels",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "num_embeddings",
    "embedding_dim",
    "input_size",
    "hidden_size",
]
# The parameters of layers
TENSORS = ("weight", "bias", "w_ih", "w_hh", "b_ih", "b_hh")
# What a cell's parameters are called in a module
PARAMETERS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}


def is_module(thing: Any) -> bool:
    """Whether this is a module or a class of modules."""
    return isinstance(thing, torch.nn.Module) or (inspect.isclass(thing) and issubclass(thing, torch.nn.Module))


def layer_name(module: Any) -> str | None:
    """The layer that a module, or a class of modules, computes, by the name of its class or of a base of it."""
    cls = module if inspect.isclass(module) else type(module)
    if getattr(module, "nonlinearity", "") == "relu":
        return "rnn_relu_cell"
    return next((LAYERS[base.__name__] for base in cls.__mro__ if base.__name__ in LAYERS), None)


def options(module: Any) -> dict[str, Any]:
    """The options and sizes that a module was made with."""
    if not isinstance(module, torch.nn.Module):
        return {}
    return {name: getattr(module, name) for name in OPTIONS if hasattr(module, name)}


def parameter_names(module: torch.nn.Module) -> dict[str, str]:
    """The layer's argument that each parameter is."""
    return {name: PARAMETERS.get(name, name) for name, _ in module.named_parameters()}


def call_module(module: torch.nn.Module, inputs: list[Any], arguments: Mapping[str, Any]) -> Any:
    """The module with other parameters, its buffers copied in their dtype."""
    given = {name: arguments[argument] for name, argument in parameter_names(module).items()}
    for name, buffer in module.named_buffers():
        given[name] = buffer.to(arguments["input"].dtype, copy=True) if buffer.is_floating_point() else buffer.clone()
    return torch.func.functional_call(module, given, tuple(inputs))


def construct(cls: type[torch.nn.Module], layer: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """A module of these sizes and options, of which it is told what its constructor takes."""
    known = {**sizes(layer, arguments), **{name: x for name, x in arguments.items() if not isinstance(x, Tensor)}}
    known["bias"] = any(isinstance(arguments.get(name), Tensor) for name in ("bias", "b_ih"))
    takes = inspect.signature(cls).parameters
    return cls(**{name: known[name] for name in takes if name in known}).double()


def sizes(layer: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor asks for, read from the tensors."""
    input: Any = arguments["input"]
    weight: Any = arguments.get("weight")
    if layer.startswith("conv_transpose"):
        out_channels = weight.shape[1] * arguments.get("groups", 1)
        return {"in_channels": weight.shape[0], "out_channels": out_channels, "kernel_size": tuple(weight.shape[2:])}
    if layer.startswith("conv"):
        return {
            "in_channels": input.shape[1],
            "out_channels": weight.shape[0],
            "kernel_size": tuple(weight.shape[2:]),
        }
    if layer == "linear":
        return {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    if layer == "embedding":
        return {"num_embeddings": weight.shape[0], "embedding_dim": weight.shape[1]}
    if layer.endswith("_cell"):
        return {"input_size": input.shape[1], "hidden_size": arguments["hx"].shape[1]}
    if layer in ("batch_norm", "instance_norm", "group_norm"):
        return {"num_features": input.shape[1], "num_channels": input.shape[1], "affine": True}
    return {}
