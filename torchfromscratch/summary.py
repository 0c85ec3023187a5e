"""What a model is made of, layer by layer: shapes, parameters, multiply-adds, and how far each layer sees.

Source: lecture notes, "Receptive field"; A. Araujo, W. Norris and J. Sim, "Computing receptive fields of
convolutional neural networks", Distill, 2019. Shapes, parameters and multiply-adds come from torchinfo.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchfromscratch.extras import from_extra
from torchfromscratch.functional.arguments import is_int
from torchfromscratch.kernels.windows import Windows

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class ReceptiveField:
    """What one position of a layer sees of the network's input, in each spatial dimension.

    `size` input positions, starting at `start` for the layer's first position (negative: in the padding),
    and `stride` further for each next one. A field that is the whole input has stride 0.
    """

    size: Sizes
    stride: Sizes
    start: Sizes

    @classmethod
    def of_input(cls, dims: int) -> ReceptiveField:
        """The input sees itself."""
        return cls((1,) * dims, (1,) * dims, (0,) * dims)

    def through(self, windows: Windows) -> ReceptiveField:
        """The field behind a layer with these windows."""
        steps = list(zip(self.stride, windows.extent, windows.stride, windows.padding, strict=True))
        return ReceptiveField(
            tuple(size + (extent - 1) * step for size, (step, extent, _, _) in zip(self.size, steps, strict=True)),
            tuple(step * stride for step, _, stride, _ in steps),
            tuple(start - p * step for start, (step, _, _, p) in zip(self.start, steps, strict=True)),
        )

    def __or__(self, other: ReceptiveField) -> ReceptiveField:
        """The smallest field that contains both, where two branches meet; their strides are equal."""
        start = tuple(map(min, self.start, other.start))
        ends = [max(a + b, c + d) for a, b, c, d in zip(self.start, self.size, other.start, other.size, strict=True)]
        return ReceptiveField(tuple(end - first for end, first in zip(ends, start, strict=True)), self.stride, start)


@dataclass(frozen=True)
class Layer:
    """One layer of a model: `multiply_adds` for the given input, `receptive_field` None where it is not known."""

    name: str
    kind: str
    depth: int
    output_shape: Sizes
    parameters: int
    multiply_adds: int
    receptive_field: ReceptiveField | None


@dataclass(frozen=True)
class Summary:
    """All layers of a model in the order in which they run, as data; `str` makes a table of it."""

    layers: list[Layer]
    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        head = ("Layer", "Output", "Parameters", "Multiply-adds", "Sees", "Stride", "Start")
        rows = [head, *(_row(layer) for layer in self.layers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        rule = "─" * len(lines[0])
        total = f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds"
        return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:], rule, total])


def summary(model: torch.nn.Module, input_size: Sequence[int]) -> Summary:
    """Output shape, parameters, multiply-adds and receptive field of every layer.

    `input_size` is the input's shape with its batch, (N, C, …). The receptive field follows convolutions,
    pooling, activations, normalisation (of which it disregards the statistics), and sums and concatenations
    of branches; behind a layer that mixes all positions it is the whole input, behind one whose windows are
    not known it is None. The model is run once, in evaluation mode.
    Raises TypeError for what is no model or no shape, ValueError for sizes below 1, RuntimeError where the model
    cannot take the input, MissingExtraError without the package torchinfo.
    """
    _check(model, input_size)
    with from_extra("train"):
        import torchinfo

    dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.get_default_dtype())
    follower = _Follower(tuple(input_size[2:]))
    removable = [module.register_forward_hook(follower.leave) for module in model.modules()]
    removable.append(model.register_forward_pre_hook(follower.enter))
    try:
        with follower:
            found = torchinfo.summary(
                model, input_size=tuple(input_size), dtypes=[dtype], mode="eval", verbose=0, depth=100
            )
    except RuntimeError as error:
        reason = error.__cause__ or error  # torchinfo's own message sends the reader to the traceback of its cause
        raise RuntimeError(f"{type(model).__name__} cannot take an input of {tuple(input_size)}: {reason}") from reason
    finally:
        for hook in removable:
            hook.remove()
    layers = [
        Layer(
            info.var_name,
            info.class_name,
            info.depth,
            tuple(info.output_size),
            0 if info.is_recursive else info.leftover_params() if info.children else info.num_params,
            0 if info.children else info.macs,
            follower.next_field(info.module),
        )
        for info in found.summary_list
    ]
    return Summary(layers, found.total_params, found.total_mult_adds)


def _check(model: Any, input_size: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"summary needs a torch.nn.Module, but got {model!r} of type {type(model).__name__}")
    if not isinstance(input_size, tuple | list) or not input_size or not all(map(is_int, input_size)):
        raise TypeError(
            f"summary needs the shape of an input with its batch, as (1, 3, 32, 32), but got {input_size!r}"
        )
    if min(input_size) < 1:
        raise ValueError(f"every size of an input must be at least 1, but got {tuple(input_size)}")


# Layers that keep every position where it is, by the modules of torch.nn that hold them.
_POINTWISE = {
    f"torch.nn.modules.{home}" for home in ("activation", "batchnorm", "dropout", "instancenorm", "normalization")
}
# The same for functions, by name, with `relu_` and `__add__` read as relu and add.
_POINTWISE_FUNCTIONS = {"add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "gelu", "silu", "cat", "dropout"}


class _Follower(TorchFunctionMode):
    """Remembers what each tensor of a running model sees of the input."""

    def __init__(self, input_size: Sizes) -> None:
        super().__init__()
        self.input_size = input_size
        self.fields: dict[int, tuple[Tensor, ReceptiveField]] = {}  # the tensor is kept, so that its id stays its own
        self.calls: dict[torch.nn.Module, list[ReceptiveField | None]] = defaultdict(list)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").strip("_") in _POINTWISE_FUNCTIONS:
            operands = args[0] if isinstance(args[0], tuple | list) else args
            self._remember(output, self._union([value for value in operands if isinstance(value, Tensor)], output))
        return output

    def enter(self, module: torch.nn.Module, args: tuple) -> None:
        self._remember(args[0], ReceptiveField.of_input(len(self.input_size)))

    def leave(self, module: torch.nn.Module, args: tuple, output: Any) -> None:
        if not isinstance(output, Tensor) or not args or not isinstance(args[0], Tensor):
            self.calls[module].append(None)
            return
        self._remember(output, self._behind(module, args[0], output))
        self.calls[module].append(self._of(output))

    def next_field(self, module: torch.nn.Module) -> ReceptiveField | None:
        """What the module's output saw, call by call."""
        calls = self.calls[module]
        return calls.pop(0) if calls else None

    def _behind(self, module: torch.nn.Module, input: Tensor, output: Tensor) -> ReceptiveField | None:
        """The field of a module's output."""
        if any(True for _ in module.children()):
            return self._of(output)
        if output.dim() != len(self.input_size) + 2:
            return self._whole()
        field, windows = self._of(input), _windows(module, input, output)
        if _is_pointwise(module):
            return field
        return None if field is None or windows is None else field.through(windows)

    def _whole(self) -> ReceptiveField:
        return ReceptiveField(self.input_size, (0,) * len(self.input_size), (0,) * len(self.input_size))

    def _union(self, operands: list[Tensor], output: Any) -> ReceptiveField | None:
        """What a sum or concatenation of tensors sees; None if one of them is not known."""
        spatial = [tensor for tensor in operands if tensor.dim() == len(self.input_size) + 2]
        if not spatial or not isinstance(output, Tensor) or output.shape[2:] != spatial[0].shape[2:]:
            return None
        fields = [self._of(tensor) for tensor in spatial]
        known = [field for field in fields if field is not None]
        if len(known) < len(fields) or len({field.stride for field in known}) > 1:
            return None
        union = known[0]
        for field in known[1:]:
            union = union | field
        return union

    def _remember(self, tensor: Any, field: ReceptiveField | None) -> None:
        if field is None:
            self.fields.pop(id(tensor), None)
        else:
            self.fields[id(tensor)] = (tensor, field)

    def _of(self, tensor: Tensor) -> ReceptiveField | None:
        return self.fields.get(id(tensor), (None, None))[1]


def _is_pointwise(module: torch.nn.Module) -> bool:
    homes = {kind.__module__ for kind in type(module).__mro__}
    return isinstance(module, torch.nn.Identity) or not homes.isdisjoint(_POINTWISE)


def _of_dims(*names: str) -> Any:
    return tuple(getattr(torch.nn, f"{name}{dims}d") for name in names for dims in (1, 2, 3))


def _windows(module: Any, input: Tensor, output: Tensor) -> Windows | None:
    """The windows of a convolution or pooling module."""
    dims = input.dim() - 2
    if isinstance(module, _of_dims("ConvTranspose")):
        return None
    if isinstance(module, _of_dims("Conv")):
        padding = module.padding
        if isinstance(padding, str):
            totals = [d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)]
            padding = tuple(total // 2 if padding == "same" else 0 for total in totals)
        return Windows(module.kernel_size, module.stride, padding, module.dilation)
    if isinstance(module, _of_dims("AdaptiveAvgPool", "AdaptiveMaxPool")):
        sizes = list(zip(input.shape[2:], output.shape[2:], strict=True))
        if any(i % o for i, o in sizes):
            return None
        steps = tuple(i // o for i, o in sizes)
        return Windows(steps, steps, (0,) * dims, (1,) * dims)
    if isinstance(module, _of_dims("MaxPool", "AvgPool")):
        stride = module.kernel_size if module.stride is None else module.stride
        dilation = getattr(module, "dilation", 1)
        options: tuple[Any, ...] = (module.kernel_size, stride, module.padding, dilation)
        kernel_size, stride, padding, dilation = (_each(option, dims) for option in options)
        return Windows(kernel_size, stride, padding, dilation)
    return None


def _each(value: int | Sizes, dims: int) -> Sizes:
    return (value,) * dims if isinstance(value, int) else tuple(value)


def _row(layer: Layer) -> tuple[str, ...]:
    """The cells of a layer's line."""
    field = layer.receptive_field
    if field is None:
        told: tuple[str, ...] = ("?", "?", "?")
    elif not any(field.stride):
        told = ("all", "—", "—")
    else:
        told = tuple(map(_times, (field.size, field.stride, field.start)))
    name = f"{'  ' * layer.depth}{layer.name} ({layer.kind})" if layer.name != layer.kind else layer.kind
    counts = (f"{count:,}" if count else "—" for count in (layer.parameters, layer.multiply_adds))
    return (name, _times(layer.output_shape), *counts, *told)


def _times(sizes: Sizes) -> str:
    return "×".join(str(size).replace("-", "−") for size in sizes)
