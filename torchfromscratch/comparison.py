"""A training step of a model on torch.nn and by hand: the differences, the time, the memory."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch._torch_private import tree_leaves
from torchfromscratch.audit import Report, audit
from torchfromscratch.convert import convert
from torchfromscratch.from_scratch import from_scratch

__all__ = [
    "Comparison",
    "Step",
    "by_hand",
    "compare",
    "disable_dropout",
    "fill_zero_weights",
    "peak_memory",
    "step_time",
    "take_step",
]

DROPOUT = tuple(
    kind for name, kind in vars(torch.nn).items() if name.endswith(("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"))
)

# What is zero but for rounding, as the gradient of a bias before batch norm, is measured on the largest of its kind:
# below this part of it, or the square root of a coarser type's eps.
NEGLIGIBLE = 1e-6


@dataclass
class Step:
    """What a forward and a backward from the mean of the squared outputs gave."""

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


@dataclass
class Comparison:
    """How far a step is from another: the largest difference of a tensor over its largest element.

    `gradient_name` is the parameter whose gradient differs most; `kernels` are the built-in layers that the step ran.
    """

    output_error: float
    gradient_error: float
    gradient_name: str
    buffer_error: float
    kernels: Report


def take_step(model: torch.nn.Module, inputs: Sequence[Any]) -> Step:
    """One step of the model as it is, which is left as it was: the measure for `compare`."""
    with _preserve(model):
        outputs = _step(model, inputs)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return Step(outputs, gradients, buffers)


def compare(model: torch.nn.Module, inputs: Sequence[Any], expected: Step) -> Comparison:
    """One step of the model as it is, which is left as it was, against what was expected.

    Each gradient is compared as soon as it is complete and then dropped, so that `expected` has the only set
    of them in memory.
    """
    scale = _largest(expected.gradients.values())
    errors = dict.fromkeys(expected.gradients, float("inf"))

    def check(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            errors[name] = _error(parameter.grad, expected.gradients.get(name), scale)
            parameter.grad = None

        return hook

    parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hooks = [parameter.register_post_accumulate_grad_hook(check(name)) for name, parameter in parameters]
    try:
        with _preserve(model), audit(record=True) as kernels:
            outputs = _step(model, inputs)
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    finally:
        for hook in hooks:
            hook.remove()
    name, error = max(errors.items(), key=lambda item: item[1], default=("", 0.0))
    output_errors = [_error(*pair) for pair in zip(outputs, expected.outputs, strict=True)]
    scale = _largest(expected.buffers.values())
    buffer_errors = [_error(buffer, expected.buffers[name], scale) for name, buffer in buffers.items()]
    return Comparison(max(output_errors, default=0.0), error, name, max(buffer_errors, default=0.0), kernels)


@contextmanager
def by_hand(model: torch.nn.Module, how: str = "convert") -> Iterator[None]:
    """Inside, the model runs by hand: converted with `convert`, or unconverted in `from_scratch()`."""
    if how == "from_scratch":
        with from_scratch():
            yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # conversion_report tells it
        convert(model)
    try:
        yield
    finally:
        convert(model, to="torch")


def step_time(model: torch.nn.Module, inputs: Sequence[Any], repetitions: int = 5) -> tuple[float, float]:
    """Seconds of a step on torch.nn and by hand: the fastest of each, taken in turns."""
    times: dict[str, list[float]] = {"torch": [], "scratch": []}
    for _ in range(repetitions):
        for layers in times:
            with by_hand(model) if layers == "scratch" else nullcontext():
                _synchronize(inputs)
                start = time.perf_counter()
                _step(model, inputs)
                _synchronize(inputs)
                times[layers].append(time.perf_counter() - start)
    return min(times["torch"]), min(times["scratch"])


def peak_memory(model: torch.nn.Module, inputs: Sequence[Any]) -> tuple[int, int]:
    """Bytes that a step on torch.nn and by hand allocates at most beyond what was there before."""
    return _peak(model, inputs, nullcontext()), _peak(model, inputs, by_hand(model))


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every probability of dropping something to 0, so that two runs can be compared."""
    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, DROPOUT) or type(module).__name__ == "StochasticDepth":  # torchvision's
            module.p = 0.0
        elif type(module).__name__ == "DropPath":  # timm's
            module.drop_prob = 0.0
        elif isinstance(module, (torch.nn.MultiheadAttention, torch.nn.RNNBase)):
            module.dropout = 0.0


def fill_zero_weights(model: torch.nn.Module) -> None:
    """Give weights that begin as zeros, as a vision transformer's head does, values: behind them no gradient flows.

    So do the factors of a norm or of a whole branch; a vector of biases stays.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (parameter.dim() > 1 or "bias" not in name) and not parameter.any():
                parameter.normal_(std=0.02)


@contextmanager
def _preserve(model: torch.nn.Module) -> Iterator[None]:
    """Inside there are no gradients at first, and always the same random numbers; then the buffers are put back.

    A forward may put another tensor, of another size, in a buffer's place.
    """
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    model.zero_grad()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        model.zero_grad()
        with torch.no_grad():
            for name, (buffer, value) in buffers.items():
                owner, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(owner), attribute, buffer.copy_(value))


def _step(model: torch.nn.Module, inputs: Sequence[Any]) -> list[Tensor]:
    """The outputs of a forward, after a backward from the mean of their squares."""
    outputs = [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]
    losses = [output.square().mean() for output in outputs if output.requires_grad]
    if losses:
        torch.stack(losses).sum().backward()
    return [output.detach() for output in outputs]


def _error(value: Tensor | None, expected: Tensor | None, largest: float = 0.0) -> float:
    """max |value − expected| / max |expected|, infinite if one of them is missing or NaN."""
    if value is None or expected is None:
        return 0.0 if value is expected else float("inf")
    if value.shape != expected.shape:
        return float("inf")
    if torch.equal(value, expected):
        return 0.0
    difference = _largest([_wide(value) - _wide(expected)])
    negligible = max(NEGLIGIBLE, torch.finfo(value.dtype).eps ** 0.5) if value.is_floating_point() else NEGLIGIBLE
    scale = max(_largest([expected]), negligible * largest)
    return difference / scale if difference < float("inf") and scale > 0 else float("inf")


def _largest(tensors: Iterable[Tensor]) -> float:
    return max((float(_wide(tensor).abs().max()) for tensor in tensors if tensor.numel()), default=0.0)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def _peak(model: torch.nn.Module, inputs: Sequence[Any], context: Any) -> int:
    with context:
        return peak_allocation(lambda: _step(model, inputs), on_cuda=_on_cuda(inputs))


def peak_allocation(step: Callable[[], object], on_cuda: bool) -> int:
    """Bytes that a call of `step`, the second, allocates at most beyond what was there before."""
    step()  # what is allocated once, as gradients are, is there from now on
    if on_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with _silence(), torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    used = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        used += event.nbytes()
        peak = max(peak, used)
    return peak


@contextmanager
def _silence() -> Iterator[None]:
    """The profiler's native code writes to stderr that there is no GPU, whatever it is asked for."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _on_cuda(inputs: Sequence[Any]) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(inputs))


def _synchronize(inputs: Sequence[Any]) -> None:
    if _on_cuda(inputs):
        torch.cuda.synchronize()
