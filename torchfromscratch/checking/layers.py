"""The layers that can be checked, and which of them `like` means."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking import formulas, modules
from torchfromscratch.checking.case import Case
from torchfromscratch.checking.truth import Truth
from torchfromscratch.errors import UserError


class CannotCheckError(UserError, ValueError):
    """What was given cannot be checked; the message says why, and what would do."""


@dataclass(frozen=True)
class Layer:
    """A layer: its name in torch.nn.functional, its definition, and where its gradient is derived.

    `constants` are tensors of real numbers that have no gradient.
    """

    name: str
    formula: Callable[..., Any]
    derivation: str
    constants: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments, in torch.nn.functional's order."""
        return tuple(inspect.signature(self.formula).parameters)

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of arguments that may be left out."""
        parameters = inspect.signature(self.formula).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    @property
    def optional(self) -> set[str]:
        """The arguments without which the layer can be called: a norm needs no statistics, nor to be told its shape."""
        return {*self.defaults, "running_mean", "running_var", "normalized_shape"}

    def truth(self, case: Case, dtype: torch.dtype = torch.float64) -> Truth:
        """The right answers in a case."""
        return Truth(self, case, dtype)

    def __call__(self, **arguments: Any) -> tuple[Tensor, ...]:
        """The outputs."""
        output = self.formula(**arguments)
        return output if isinstance(output, tuple) else (output,)


def _dims(name: str, formula: Callable[..., Any], derivation: str) -> list[Layer]:
    """The layer in one, two and three dimensions."""
    return [Layer(name.format(n), formula, derivation) for n in (1, 2, 3)]


_TARGETS = ("target", "weight", "pos_weight")
_RUNNING = ("running_mean", "running_var")
_ACTIVATIONS = "ReLU, LeakyReLU and other activations"
_NORMS = "Batch, layer, group and instance norm"

_TABLE = [
    *_dims("conv{}d", formulas.conv, "Convolution"),
    *_dims("conv_transpose{}d", formulas.conv_transpose, "Transposed convolution"),
    *_dims("max_pool{}d", formulas.max_pool, "Max pooling"),
    Layer("avg_pool1d", formulas.avg_pool1d, "Average pooling"),
    *_dims("avg_pool{}d", formulas.avg_pool, "Average pooling")[1:],
    *_dims("adaptive_max_pool{}d", formulas.adaptive_max_pool, "Max pooling"),
    *_dims("adaptive_avg_pool{}d", formulas.adaptive_avg_pool, "Average pooling"),
    Layer("linear", formulas.linear, "Linear"),
    Layer("relu", formulas.relu, _ACTIVATIONS),
    Layer("leaky_relu", formulas.leaky_relu, _ACTIVATIONS),
    Layer("sigmoid", formulas.sigmoid, _ACTIVATIONS),
    Layer("tanh", formulas.tanh, _ACTIVATIONS),
    Layer("softmax", formulas.softmax, "Softmax"),
    Layer("log_softmax", formulas.log_softmax, "Softmax"),
    Layer("cross_entropy", formulas.cross_entropy, "Cross-entropy", _TARGETS),
    Layer("nll_loss", formulas.nll_loss, "Cross-entropy", _TARGETS),
    Layer("binary_cross_entropy", formulas.binary_cross_entropy, "Cross-entropy", _TARGETS),
    Layer("binary_cross_entropy_with_logits", formulas.binary_cross_entropy_with_logits, "Cross-entropy", _TARGETS),
    Layer("mse_loss", formulas.mse_loss, "Cross-entropy", _TARGETS),
    Layer("batch_norm", formulas.batch_norm, _NORMS, _RUNNING),
    Layer("instance_norm", formulas.instance_norm, _NORMS, _RUNNING),
    Layer("layer_norm", formulas.layer_norm, _NORMS),
    Layer("group_norm", formulas.group_norm, _NORMS),
    Layer("embedding", formulas.embedding, "Embedding"),
    Layer("dropout", formulas.dropout, "Dropout", ("mask",)),
    Layer("scaled_dot_product_attention", formulas.scaled_dot_product_attention, "Attention", ("attn_mask",)),
    Layer("rnn_tanh_cell", formulas.rnn_tanh_cell, "Recurrent layers"),
    Layer("rnn_relu_cell", formulas.rnn_relu_cell, "Recurrent layers"),
    Layer("lstm_cell", formulas.lstm_cell, "Recurrent layers"),
    Layer("gru_cell", formulas.gru_cell, "Recurrent layers"),
]
LAYERS = {layer.name: layer for layer in _TABLE}
OTHER_NAMES = {
    "attention": "scaled_dot_product_attention",
    "sdpa": "scaled_dot_product_attention",
    "rnn_cell": "rnn_tanh_cell",
    "mse": "mse_loss",
    "bce": "binary_cross_entropy",
    "bce_with_logits": "binary_cross_entropy_with_logits",
    **{f"batch_norm{n}d": "batch_norm" for n in (1, 2, 3)},
}


def find(like: Any) -> Layer:
    """The layer of this name, or the one that this function of torch.nn.functional or this module computes."""
    name = like if isinstance(like, str) else getattr(like, "__name__", "")
    if modules.is_module(like):
        name = modules.layer_name(like) or name
    name = OTHER_NAMES.get(name, name)
    if name in LAYERS:
        return LAYERS[name]
    close = difflib.get_close_matches(name, LAYERS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(LAYERS)}"
    raise CannotCheckError(f"no layer {like!r} to compare with: {hint}")
