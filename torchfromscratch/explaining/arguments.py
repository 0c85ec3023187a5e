"""Layers by the arguments of torch.nn.functional: which explanation tells them, and what its results are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking import modules
from torchfromscratch.checking.layers import LAYERS
from torchfromscratch.errors import UserError
from torchfromscratch.explaining import layers
from torchfromscratch.explaining.explanation import Explanation, sizes
from torchfromscratch.explaining.layers.common import GradOutput, Pair

# More products than a person can read, and than a page shows without stutter.
MOST_PRODUCTS = 20_000


class CannotExplainError(UserError, ValueError):
    """What was given cannot be explained; the message says why, and what would do."""


@dataclass(frozen=True)
class Explained:
    """How a layer with these arguments is explained, and the names of its arguments and outputs there.

    `build` returns None where the explanation does not know an option. `symbols` is empty where arguments are joined.
    """

    build: Callable[..., Explanation | None]
    symbols: dict[str, str]

    def names(self) -> dict[str, str]:
        """What a check calls each result, and what the explanation does: input.grad, dL/dx."""
        return {
            name if name == "output" else f"{name}.grad": symbol if name == "output" else f"dL/d{symbol}"
            for name, symbol in self.symbols.items()
        }


@dataclass(frozen=True)
class Gradient:
    """dL/dy: the given one, or small whole numbers drawn from the seed; 1 for a loss."""

    given: Tensor | None
    seed: int

    def __call__(self, shape: torch.Size) -> Tensor:
        if self.given is None:
            generator = torch.Generator().manual_seed(self.seed)
            return torch.randint(-2, 3, shape, generator=generator).double() if shape else torch.ones(shape).double()
        if self.given.shape != shape:
            raise CannotExplainError(
                f"grad_output is {sizes(self.given.shape)}, and the output is {sizes(shape) or 'one number'}"
            )
        return self.given.detach().double()


def has_numbers(arguments: Mapping[Any, Any]) -> bool:
    """Whether every tensor has elements."""
    return all(x.numel() for x in arguments.values() if isinstance(x, Tensor))


def require_readable(products: int, smaller: str = "the tensors") -> None:
    """Refuse what no one could read, before it takes time and memory."""
    if products > MOST_PRODUCTS:
        raise CannotExplainError(
            f"about {products:,} products are too many to read (at most {MOST_PRODUCTS:,}); make {smaller} smaller"
        )


def _conv2d(*, input: Tensor, padding: Any, grad_output: GradOutput, **arguments: Any) -> Explanation | None:
    if padding == "same":
        return None
    return layers.conv2d(
        _samples(input),
        arguments["weight"],
        arguments["bias"],
        stride=_pair(arguments["stride"]),
        padding=_pair(0 if padding == "valid" else padding),
        dilation=_pair(arguments["dilation"]),
        groups=arguments["groups"],
        grad_output=grad_output,
    )


def _conv_transpose2d(*, input: Tensor, grad_output: GradOutput, **arguments: Any) -> Explanation:
    pairs = {name: _pair(arguments[name]) for name in ("stride", "padding", "output_padding", "dilation")}
    weight, bias, groups = (arguments[name] for name in ("weight", "bias", "groups"))
    return layers.conv_transpose2d(_samples(input), weight, bias, **pairs, groups=groups, grad_output=grad_output)


def _max_pool2d(*, input: Tensor, grad_output: GradOutput, **arguments: Any) -> Explanation:
    dilation = _pair(arguments["dilation"])
    return layers.max_pool2d(_samples(input), **_pooling(arguments), dilation=dilation, grad_output=grad_output)


def _avg_pool2d(*, input: Tensor, grad_output: GradOutput, **arguments: Any) -> Explanation | None:
    if arguments["divisor_override"] is not None:
        return None
    counts = arguments["count_include_pad"]
    return layers.avg_pool2d(_samples(input), **_pooling(arguments), count_include_pad=counts, grad_output=grad_output)


def _pooling(arguments: dict[str, Any]) -> dict[str, Any]:
    kernel_size, stride = arguments["kernel_size"], arguments["stride"]
    return {
        "kernel_size": _pair(kernel_size),
        "stride": _pair(kernel_size if stride is None else stride),
        "padding": _pair(arguments["padding"]),
        "ceil_mode": arguments["ceil_mode"],
    }


def _linear(*, input: Tensor, weight: Tensor, bias: Tensor | None, grad_output: GradOutput) -> Explanation | None:
    return layers.linear(input, weight, bias, grad_output=grad_output) if input.dim() == 2 else None


def _relu(*, input: Tensor, grad_output: GradOutput, **_: Any) -> Explanation:
    return layers.relu(input, grad_output=grad_output)


def _softmax(*, input: Tensor, dim: int | None, grad_output: GradOutput, **_: Any) -> Explanation | None:
    is_row = input.dim() == 2 and dim in (None, -1, 1)
    return layers.softmax(input, grad_output=grad_output) if is_row else None


def _cross_entropy(*, input: Tensor, target: Tensor, grad_output: GradOutput, **options: Any) -> Explanation | None:
    is_plain = options["weight"] is None and options["reduction"] == "mean" and options["label_smoothing"] == 0
    if (
        not is_plain
        or input.dim() != 2
        or target.is_floating_point()
        or bool((target == options["ignore_index"]).any())
    ):
        return None
    return layers.cross_entropy(input, target) if float(grad_output(torch.Size([]))) == 1 else None


def _batch_norm(
    *, input: Tensor, weight: Any, bias: Any, grad_output: GradOutput, **options: Any
) -> Explanation | None:
    if not options["training"] or weight is None or bias is None:
        return None
    return layers.batch_norm(input, weight, bias, eps=options["eps"], grad_output=grad_output)


def _layer_norm(
    *, input: Tensor, weight: Any, bias: Any, grad_output: GradOutput, **options: Any
) -> Explanation | None:
    if input.dim() != 2 or len(options["normalized_shape"]) != 1 or weight is None or bias is None:
        return None
    return layers.layer_norm(input, weight, bias, eps=options["eps"], grad_output=grad_output)


def _embedding(*, input: Tensor, weight: Tensor, grad_output: GradOutput, **options: Any) -> Explanation | None:
    is_plain = input.dim() == 1 and options["padding_idx"] is None
    return layers.embedding(input, weight, grad_output=grad_output) if is_plain else None


def _attention(
    *, query: Tensor, key: Tensor, value: Tensor, grad_output: GradOutput, **options: Any
) -> Explanation | None:
    is_plain = options["attn_mask"] is None and not (options["dropout_p"] or options["is_causal"] or options["scale"])
    return layers.attention(query, key, value, grad_output=grad_output) if is_plain and query.dim() == 2 else None


def _lstm_cell(
    *, input: Tensor, hx: Tensor, cx: Tensor, w_ih: Tensor, w_hh: Tensor, grad_output: GradOutput, **biases: Any
) -> Explanation | None:
    if input.dim() != 2 or None in (biases["b_ih"], biases["b_hh"]):
        return None
    weight, bias = torch.cat([w_ih, w_hh], 1), biases["b_ih"] + biases["b_hh"]
    return layers.lstm(input, hx, cx, weight, bias, grad_output=grad_output)


def _samples(input: Tensor) -> Tensor:
    """(C, H, W) or (N, C, H, W) → (N, C, H, W)."""
    return input.unsqueeze(0) if input.dim() == 3 else input


def _pair(size: Any) -> Pair:
    """2, (2,) or (2, 2) → (2, 2)."""
    rows, columns = (size, size) if isinstance(size, int) else (size[0], size[-1])
    return int(rows), int(columns)


def products(arguments: Mapping[str, Any]) -> int:
    """About how many products there are: the largest tensor with each number of the next."""
    counts = sorted((x.numel() for x in arguments.values() if isinstance(x, Tensor)), reverse=True)
    return math.prod(counts[:2])


_WEIGHTED = {"output": "y", "input": "x", "weight": "w", "bias": "b"}
_NORM = {"output": "y", "input": "x", "weight": "γ", "bias": "β"}

EXPLAINED = {
    "conv2d": Explained(_conv2d, _WEIGHTED),
    "conv_transpose2d": Explained(_conv_transpose2d, _WEIGHTED),
    "max_pool2d": Explained(_max_pool2d, {"output": "y", "input": "x"}),
    "avg_pool2d": Explained(_avg_pool2d, {"output": "y", "input": "x"}),
    "linear": Explained(_linear, _WEIGHTED),
    "relu": Explained(_relu, {"output": "y", "input": "x"}),
    "softmax": Explained(_softmax, {"output": "y", "input": "z"}),
    "cross_entropy": Explained(_cross_entropy, {"output": "L", "input": "z"}),
    "batch_norm": Explained(_batch_norm, _NORM),
    "layer_norm": Explained(_layer_norm, _NORM),
    "embedding": Explained(_embedding, {"output": "y", "weight": "E"}),
    "scaled_dot_product_attention": Explained(_attention, {"output": "y", "query": "Q", "key": "K", "value": "V"}),
    "lstm_cell": Explained(_lstm_cell, {}),
}


def build(name: str, arguments: Mapping[str, Any], grad_output: GradOutput) -> Explanation | None:
    """The layer's own explanation, in float64, or None where it has none for these arguments."""
    if name not in EXPLAINED:
        return None
    doubled = {argument: in_double(value) for argument, value in arguments.items()}
    require_readable(products(doubled))
    try:
        return EXPLAINED[name].build(**{**LAYERS[name].defaults, **doubled}, grad_output=grad_output)
    except UserError:
        raise
    except (ValueError, RuntimeError, TypeError, IndexError, NotImplementedError) as error:
        raise CannotExplainError(f"{name}: {error}") from error


def held_by(module: torch.nn.Module, name: str) -> dict[str, Any]:
    """What a module passes on to the layer's function: its parameters and options."""
    names = modules.parameter_names(module)
    parameters = {names[attribute]: value.detach() for attribute, value in module.named_parameters()}
    found = {**modules.options(module), **parameters}
    if name == "batch_norm":
        found |= {"training": module.training, **dict(module.named_buffers())}
    return {argument: value for argument, value in found.items() if argument in LAYERS[name].arguments}


def in_double(value: Any) -> Any:
    return value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else value
