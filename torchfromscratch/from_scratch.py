"""Run code that calls torch itself, torch.conv2d or F.relu or x.softmax(1), on the hand-written layers.

torch offers every call of its functions and of Tensor's methods to a TorchFunctionMode. Ours looks the function
up in one table and calls the hand-written one in its place. The table follows from names alone, since
ours have the names and signatures of torch.nn.functional; only where a function of torch takes other
arguments than torch.nn.functional's of the same name, these are listed below.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchfromscratch import _torch_private as private
from torchfromscratch import functional
from torchfromscratch.fast_paths import keep_fast_paths
from torchfromscratch.functional.override import is_causal_bias
from torchfromscratch.functional.reduction import REDUCTIONS
from torchfromscratch.kernels.execution import is_compiling
from torchfromscratch.modes import call_inside

__all__ = ["from_scratch"]


@contextmanager
def from_scratch() -> Iterator[None]:
    """Inside, every call of a layer in torch, torch.nn.functional or Tensor runs the hand-written one.

        with torchfromscratch.from_scratch():
            y = model(x)

    That covers torch.nn's modules, which call these functions. Everything else is left alone, also a layer that is
    called with tensors that are not dense: quantized, sparse or nested ones. What stands for a tensor is handed the
    hand-written function, so that a graph of torch.fx holds that.
    Also a decorator, `@torchfromscratch.from_scratch()`, but not of a generator, whose body runs later; may be nested;
    holds in the thread that enters it. A backward pass may follow outside: the forward has fixed what it runs. Code
    inside TorchScript is out of reach.
    """
    if any([isinstance(mode, _ByHand) for mode in private.function_modes()]):
        yield
    elif is_compiling():  # which neither locks nor changes a class
        enabled = torch.backends.mha.get_fastpath_enabled()
        private.set_fast_paths(False)
        try:
            with _ByHand():
                yield
        finally:
            private.set_fast_paths(enabled)
    else:
        with keep_fast_paths(_ByHand), _ByHand():
            yield


class _ByHand(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        layer = _TABLE.get(func)
        if layer is None:
            return call_inside(self, func, args, kwargs)
        if not all(map(_is_dense, [*args, *kwargs.values()])):
            return func(*args, **kwargs)
        if (out := kwargs.pop("out", None)) is not None:
            return torch.mul(layer(*args, **kwargs), 1, out=out)  # checks and resizes `out` as torch's layers do
        return layer(*args, **kwargs)


def _is_dense(value: Any) -> bool:
    """Whether an argument of a layer is a tensor that the hand-written ones can compute with, or none at all."""
    if not isinstance(value, Tensor) or is_causal_bias(value):
        return True
    return value.layout is torch.strided and not (value.is_quantized or value.is_nested)


# The arguments of torch's functions that differ from torch.nn.functional's of the same name.
_ARGUMENTS = {
    "alpha_dropout": "input p train",
    "batch_norm": "input weight bias running_mean running_var training momentum eps cudnn_enabled",
    "binary_cross_entropy_with_logits": "input target weight pos_weight reduction",
    "ctc_loss": "log_probs targets input_lengths target_lengths blank reduction zero_infinity",
    "cosine_embedding_loss": "input1 input2 target margin reduction",
    "dropout": "input p train",
    "embedding": "weight indices padding_idx scale_grad_by_freq sparse",
    "feature_alpha_dropout": "input p train",
    "group_norm": "input num_groups weight bias eps cudnn_enabled",
    "hinge_embedding_loss": "input target margin reduction",
    "instance_norm": "input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled",
    "kl_div": "input target reduction log_target",
    "layer_norm": "input normalized_shape weight bias eps cudnn_enable",
    "log_softmax": "input dim dtype",
    "margin_ranking_loss": "input1 input2 target margin reduction",
    "poisson_nll_loss": "input target log_input full eps reduction",
    "softmax": "input dim dtype",
    "triplet_margin_loss": "anchor positive negative margin p eps swap reduction",
}
_RENAMED = {"indices": "input", "train": "training"}
_MEANINGLESS = {"cudnn_enable", "cudnn_enabled"}


def _with_arguments_of_torch(function: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """`function` of torch.nn.functional's arguments as a function of torch's."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False), **kwargs)
        if "reduction" in names:
            given["reduction"] = REDUCTIONS[given.get("reduction", 0)]
        if given.get("padding_idx") == -1:
            given["padding_idx"] = None
        return function(**{_RENAMED.get(name, name): given[name] for name in given if name not in _MEANINGLESS})

    return call


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, ...]:
    """torch.embedding_bag, which numbers its modes and answers with what its backward pass needs: nothing of ours."""
    output = functional.embedding_bag(
        indices,
        weight,
        offsets,
        scale_grad_by_freq=scale_grad_by_freq,
        mode=("sum", "mean", "max")[mode],
        sparse=sparse,
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=padding_idx,
    )
    nothing = indices.new_empty(0)
    return output, nothing, nothing, nothing


def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """torch.grid_sampler and its likes of two and three dimensions, which number their modes."""
    mode, padding = (
        ("bilinear", "nearest", "bicubic")[interpolation_mode],
        ("zeros", "border", "reflection")[padding_mode],
    )
    return functional.grid_sample(input, grid, mode, padding, align_corners)


def _inplace(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function that overwrites its input; the derivative may need what the input was."""
    if "inplace" in inspect.signature(function).parameters:
        return functools.partial(function, inplace=True)
    return lambda input, *args, **kwargs: input.copy_(function(input.clone(), *args, **kwargs))


def _table() -> dict[Any, Callable[..., Any]]:
    """torch's functions and Tensor's methods, each with the hand-written one."""
    table: dict[Any, Callable[..., Any]] = {}
    for name, layer in vars(functional).items():
        if name.startswith("_") or not callable(layer):
            continue
        names = _ARGUMENTS.get(name)
        of_torch = _with_arguments_of_torch(layer, names.split()) if names else layer
        # Tensor.unfold is a view and no relative of torch.nn.functional.unfold; torch.unfold does not exist
        methods = Tensor if hasattr(torch, name) else None
        for namespace in (torch, torch.special, methods):
            _enter(table, namespace, name, of_torch)
        for namespace in (torch, torch.nn.functional, Tensor):
            _enter(table, namespace, f"{name}_", _inplace(layer))
        _enter(table, torch.nn.functional, name, layer)
    _enter(table, torch, "embedding_bag", _embedding_bag)
    _enter(table, torch, "affine_grid_generator", functional.affine_grid)
    for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"):
        _enter(table, torch, name, _grid_sampler)
    # torch's own returns the indices as well
    _enter(table, torch, "adaptive_max_pool1d", functional.adaptive_max_pool1d_with_indices)
    return table


def _enter(table: dict[Any, Callable[..., Any]], namespace: Any, name: str, layer: Callable[..., Any]) -> None:
    if hasattr(namespace, name):
        table[getattr(namespace, name)] = layer


_TABLE = _table()
