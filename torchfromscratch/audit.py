"""Proof that a layer is written by hand: find every built-in layer kernel that runs.

    with torchfromscratch.audit():
        model(x).sum().backward()          # BuiltinLayerError at the first one

Two observers are needed. One stands below autograd and sees each kernel that runs, also those of a backward
pass and of composite C++ code. Some built-in layers never get there, since they fall apart into plain
arithmetic above it (linear into addmm, dropout into bernoulli_ and mul, a recurrent network into all sorts);
so the other stands where Python calls torch and sees those by their names.
"""

from __future__ import annotations

import functools
import linecache
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import dirname, join
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from torchfromscratch import _torch_private as private
from torchfromscratch.modes import call_inside

__all__ = ["BuiltinLayerError", "Call", "Report", "audit", "builtin_family"]

# What is a layer, by the words in its kernels' names; a word may end in a number of dimensions ("conv2d").
# Vendors' and fused variants (cudnn_convolution, native_layer_norm, _fused_dropout) and the parts of a
# backward (gelu_backward, embedding_dense_backward) contain the words of their layer. First match wins.
FAMILIES = {
    "resizing": "upsample|interpolate",
    "sampling": "grid_sampler?|grid_sample|affine_grid|affine_grid_generator",
    "recurrent": "rnn|lstm|gru",
    "attention": "attention|transformer_encoder_layer|rescale_qkv|sdp_choice",
    "convolution": "conv|convolution",
    "pooling": "pool|unpool",
    "normalization": "(batch|layer|group|instance|rms|local_response)_norm",
    "softmax": "softmax|softmin",
    "activation": "(sigmoid|tanh)_backward|log_?sigmoid|relu6?|prelu|rrelu|relu_with_noise|elu|selu|celu|gelu"
    "|silu|mish|glu|threshold|softplus|softsign|(soft|hard|tanh)shrink|hard(tanh|sigmoid|swish)|activation",
    "loss": "loss|kl_div|cross_entropy",
    "linear": "linear|bilinear|trilinear",
    "embedding": "embedding",
    "dropout": "dropout|masked_scale",
    "unfold": "im2col|col2im",
    "padding": "(reflection|replication)_pad",
    "distance": "cosine_similarity|pairwise_distance|pdist",
    "shuffle": "pixel_shuffle|pixel_unshuffle|channel_shuffle",
}

# Contains a word from above, but is no layer: a sum of matrices inside matrix_exp.
NO_LAYERS = "compute_linear_combination"

# The libraries of operators that come with torch and torchvision, whose deform_conv2d and roi_pool are layers by their
# names; anyone else's operator is not built in.
LIBRARIES = {
    "aten",
    "torch",
    "higher_order",
    "mkldnn",
    "mkldnn_prepacked",
    "onednn",
    "prepacked",
    "quantized",
    "torchvision",
    "xnnpack",
}


class BuiltinLayerError(RuntimeError):
    """A built-in layer ran where only hand-written ones may; `call` says which one and where."""

    def __init__(self, call: Call) -> None:
        super().__init__(f"{call.kernel} is a built-in {call.family} kernel; {call.where}")
        self.call = call


@dataclass(frozen=True)
class Call:
    """A built-in layer that ran: "aten::convolution", "convolution", and who called it."""

    kernel: str
    family: str
    caller: str
    node: str | None

    @property
    def where(self) -> str:
        return f"called by {self.caller}" if self.node is None else f"run by {self.node} in a backward, {self.caller}"


class Report:
    """Which built-in layers ran and how often; print it, or read `calls`, a Counter of `Call`.

    True if there was any.
    """

    def __init__(self) -> None:
        self.calls: Counter[Call] = Counter()

    @property
    def kernels(self) -> Counter[str]:
        """How often each kernel ran, wherever it was called."""
        kernels: Counter[str] = Counter()
        for call, count in self.calls.items():
            kernels[call.kernel] += count
        return kernels

    def __bool__(self) -> bool:
        return bool(self.calls)

    def __str__(self) -> str:
        if not self:
            return "no built-in layer ran"
        rows = [f"{count:6} × {call.kernel:40} {call.where}" for call, count in self.calls.most_common()]
        return "\n".join([f"{self.calls.total()} calls of built-in layers", *rows])


@contextmanager
def audit(*, record: bool = False) -> Iterator[Report]:
    """Raise BuiltinLayerError at the first built-in layer kernel that runs inside, forward or backward.

    With `record=True` nothing is raised; the report that `with` hands out tells which kernels ran, how often
    and from where:

        with torchfromscratch.audit(record=True) as report:
            model(x).sum().backward()
        print(report)

    Also a decorator, `@torchfromscratch.audit()`. Audits may be nested. Only the thread that opens one is
    watched, and those in which autograd runs its backward passes. Of a layer inside TorchScript only the
    kernels are seen: where it turns into arithmetic, as linear does, it leaves no trace.
    """
    report = Report()
    thread = threading.get_ident()

    def add_call(kernel: str, family: str) -> None:
        call = _describe(kernel, family, thread)
        report.calls[call] += 1
        if not record:
            raise BuiltinLayerError(call)

    kernels = _Kernels(add_call)
    with _Functions(add_call, report, kernels), kernels:
        yield report


@functools.cache
def builtin_family(name: str) -> str | None:
    """The family of layers that an operator such as "aten::conv2d" belongs to, or None if it is no layer."""
    if _has_word(NO_LAYERS, name):
        return None
    return next((family for family, words in FAMILIES.items() if _has_word(words, name)), None)


def _has_word(words: str, name: str) -> bool:
    return re.search(rf"(^|_)({words})([123]d)?(_|$)", name) is not None


class _Kernels(private.TorchDispatchMode):
    """Sees the kernels that run, below autograd."""

    supports_higher_order_operators = True

    def __init__(self, add_call: Callable[[str, str], None]) -> None:
        super().__init__()
        self.add_call = add_call
        self.running: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kernel, family = _identify(func)
        if family:
            self.add_call(kernel, family)
        outer, self.running = self.running, func
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.running = outer


class _Functions(TorchFunctionMode):
    """Sees what Python calls in torch; reports the layers that ran no kernel of their own.

    It stands below all other modes but the default device's, also those entered before: what they answer themselves,
    as from_scratch() does, never gets to torch.
    """

    def __init__(self, add_call: Callable[[str, str], None], report: Report, kernels: _Kernels) -> None:
        super().__init__()
        self.add_call = add_call
        self.report = report
        self.kernels = kernels

    def __enter__(self) -> _Functions:
        above = [private.pop_mode() for _ in private.function_modes()]
        if above and private.is_device_context(above[-1]):
            private.push_mode(above.pop())
        super().__enter__()
        _push_all(above)
        return self

    def __exit__(self, *exception: Any) -> None:
        above = []
        while (mode := private.pop_mode()) is not self:
            above.append(mode)
        _push_all(above)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kernel, family = _identify(func)
        if func is self.kernels.running:
            family = None  # and counted already
        seen = self.report.calls.total() if family else 0
        result = call_inside(self, func, args, kwargs or {})
        if family and self.report.calls.total() == seen:
            self.add_call(kernel, family)
        return result


def _push_all(modes: list[TorchFunctionMode]) -> None:
    for mode in reversed(modes):
        private.push_mode(mode)


def _identify(func: Any) -> tuple[str, str | None]:
    """What is called, as "library::operator" or by its name in Python, and its family if it is a layer."""
    name = getattr(func, "__name__", "").partition(".")[0]
    module = getattr(func, "__module__", None) or "torch"  # methods of Tensor have none
    library = module.rpartition("ops.")[2] if "ops." in module else module.partition(".")[0]
    if library == "torch":
        kernel = f"aten::{name}" if hasattr(torch.ops.aten, name) else f"{module}.{name}"
    else:
        kernel = f"{library}::{name}"
    return kernel, builtin_family(name) if library in LIBRARIES else None


def _describe(kernel: str, family: str, thread: int) -> Call:
    node = private.current_autograd_node()
    return Call(kernel, family, _caller(thread), None if node is None else node.name())


def _caller(thread: int) -> str:
    """The innermost line outside torch, and the innermost module of torch that it called.

    A backward pass on a GPU runs in a thread of its own: there, what `thread` waits for is the caller.
    """
    module = ""
    for stack in (sys._getframe(), sys._current_frames().get(thread)):
        for frame in _outwards(stack):
            file = frame.f_code.co_filename
            if file in _PASSED_ON:
                continue
            if not file.startswith(_TORCH):
                line = linecache.getline(file, frame.f_lineno).strip()
                return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}: {line}{module}"
            called = frame.f_locals.get("self")
            if not module and isinstance(called, torch.nn.Module):
                module = f" (in {type(called).__name__})"
    return "unknown code"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


_TORCH = join(dirname(torch.__file__), "")
_PASSED_ON = {join(dirname(__file__), name) for name in ("audit.py", "convert.py", "from_scratch.py", "modes.py")}
