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
from torch.utils._pytree import tree_leaves

from torchfromscratch.audit import Report, audit
from torchfromscratch.convert import ConversionReport, conversion_report, convert
from torchfromscratch.from_scratch import from_scratch

__all__ = ["Comparison", "compare", "fill_zero_weights", "peak_memory", "step_time", "switch_off_chance"]

# What is zero but for rounding, as the gradient of a bias before batch norm, is measured on the largest of its kind.
NEGLIGIBLE = 1e-6


@dataclass
class Comparison:
    """How far a step by hand is from torch.nn's: the largest difference of a tensor over its largest element."""

    torch_kernels: Report
    kernels: Report
    conversion: ConversionReport
    output_error: float
    gradient_error: float
    gradient_name: str
    buffer_error: float


def compare(model: torch.nn.Module, inputs: Sequence[Any], by_hand: str = "convert") -> Comparison:
    """Take one step on torch.nn and one by hand from the same state, and leave the model as it was.

    `by_hand` is "convert" or "from_scratch". Each gradient is compared as soon as it is complete and then
    dropped, so that one set of them is in memory and no second copy of the model.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with audit(record=True) as torch_kernels:
        expected_outputs = _step(model, inputs)
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    expected_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    buffer_scale = _largest(expected_buffers.values())
    model.zero_grad()
    _restore(model, buffers)
    gradient_scale = _largest(expected.values())
    errors: dict[str, float] = {}

    def check(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            errors[name] = _error(parameter.grad, expected.pop(name), gradient_scale)
            parameter.grad = None

        return hook

    hooks = [
        parameter.register_post_accumulate_grad_hook(check(name))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        with _by_hand(model, by_hand), audit(record=True) as kernels:
            conversion = conversion_report(model)
            outputs = _step(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    # what torch.nn gave a gradient and we did not
    errors.update({name: float("inf") for name, grad in expected.items() if grad is not None})
    gradient_name, gradient_error = max(errors.items(), key=lambda item: item[1], default=("", 0.0))
    comparison = Comparison(
        torch_kernels,
        kernels,
        conversion,
        max((_error(a, b) for a, b in zip(outputs, expected_outputs, strict=True)), default=0.0),
        gradient_error,
        gradient_name,
        max((_error(b, expected_buffers[name], buffer_scale) for name, b in model.named_buffers()), default=0.0),
    )
    _restore(model, buffers)
    return comparison


def step_time(model: torch.nn.Module, inputs: Sequence[Any], repetitions: int = 5) -> tuple[float, float]:
    """Seconds of a step on torch.nn and by hand: the fastest of each, taken in turns."""
    times: dict[str, list[float]] = {"torch": [], "scratch": []}
    for _ in range(repetitions):
        for layers in times:
            with _by_hand(model, "convert") if layers == "scratch" else nullcontext():
                _synchronize(inputs)
                start = time.perf_counter()
                _step(model, inputs)
                _synchronize(inputs)
                times[layers].append(time.perf_counter() - start)
    return min(times["torch"]), min(times["scratch"])


def peak_memory(model: torch.nn.Module, inputs: Sequence[Any]) -> tuple[int, int]:
    """Bytes that a step on torch.nn and by hand allocates at most beyond what was there before."""
    return _peak(model, inputs, nullcontext()), _peak(model, inputs, _by_hand(model, "convert"))


def switch_off_chance(model: torch.nn.Module) -> None:
    """Set every probability of dropping something to 0, so that two runs can be compared."""
    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, torch.nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        elif isinstance(module, (torch.nn.MultiheadAttention, torch.nn.RNNBase)):
            module.dropout = 0.0


def fill_zero_weights(model: torch.nn.Module) -> None:
    """Give weights that begin as zeros, as a vision transformer's head does, values: behind them no gradient flows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=0.02)


@contextmanager
def _by_hand(model: torch.nn.Module, how: str) -> Iterator[None]:
    if how == "from_scratch":
        with from_scratch():
            yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says it
        convert(model)
    try:
        yield
    finally:
        convert(model, to="torch")


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
    if value.numel() == 0 or torch.equal(value, expected):
        return 0.0
    difference = float((value - expected).abs().max())
    scale = max(float(expected.abs().max()), NEGLIGIBLE * largest)
    return difference / scale if difference < float("inf") and scale > 0 else float("inf")


def _largest(tensors: Iterable[Tensor | None]) -> float:
    return max((float(t.abs().max()) for t in tensors if t is not None and t.numel()), default=0.0)


def _restore(model: torch.nn.Module, buffers: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _peak(model: torch.nn.Module, inputs: Sequence[Any], context: Any) -> int:
    with context:
        _step(model, inputs)  # what is allocated once, as gradients are, is there from now on
        if _on_cuda(inputs):
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            _step(model, inputs)
            return torch.cuda.max_memory_allocated() - before
        with _silence(), torch.profiler.profile(profile_memory=True) as profile:
            _step(model, inputs)
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
    return any(isinstance(input, Tensor) and input.is_cuda for input in inputs)


def _synchronize(inputs: Sequence[Any]) -> None:
    if _on_cuda(inputs):
        torch.cuda.synchronize()
