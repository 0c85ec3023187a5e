"""The conformance table: PyTorch's own samples of every operator and module, put to the hand-written ones.

PyTorch keeps, for its own tests, samples of how each operator is called (OpInfo) and each module built and
called (ModuleInfo), good calls and bad ones. Every one that has a counterpart here is called twice on the
same numbers, in float64, and the answers are compared:

    values     what it returns, and what it writes into its arguments and buffers
    gradients  of everything that requires one, for a fixed dL/dy
    second     the gradients of those gradients, with respect to inputs and dL/dy
    forward    the derivative along a fixed direction in forward mode
    errors     bad calls raise an exception of the same type

In narrower types the same samples tell how accurate the layers are: `accuracy` compares the errors of values
and gradients, by hand and in torch, against torch's in float64.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import statistics
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.lazy import LazyModuleMixin

from torchfromscratch import _torch_private as private
from torchfromscratch import functional, nn
from torchfromscratch.extras import from_extra

with from_extra("train"):
    from tqdm import tqdm

__all__ = [
    "COLUMNS",
    "Errors",
    "Operator",
    "Row",
    "Sample",
    "accuracy",
    "accuracy_as_markdown",
    "as_markdown",
    "conformance",
    "operators",
]

DTYPE = torch.float64
NARROW = (torch.float32, torch.bfloat16, torch.float16)
SEED = 0

# Sums of a few thousand products differ by less between two orders of summation.
ROUNDING = 2**14 * torch.finfo(DTYPE).eps

# Where torch's own kernel is not exact to float64, so that float32's precision is all that can be asked for.
ROUNDED_IN_TORCH = {
    "celu": "torch keeps 1 / alpha in float32",
    "hardsigmoid": "torch keeps 1 / 6 in float32",
    "binary_cross_entropy": "torch's second gradient adds 1e-12 to x and to 1 - x",
}
ROUNDED_IN_TORCH |= {
    name: ROUNDED_IN_TORCH[function]
    for name, function in (("CELU", "celu"), ("Hardsigmoid", "hardsigmoid"), ("BCELoss", "binary_cross_entropy"))
}

# What torch computes wrong, as docs/torch.md shows, so that there is nothing to compare with.
WRONG_IN_TORCH = {
    (name, column): "torch is wrong, since it takes the gradient of chunks for constant"
    for name, columns in {
        "nn.functional.linear_cross_entropy chunked": ("second", "forward"),
        "nn.functional.linear_cross_entropy chunked_none": ("forward",),
        "nn.LinearCrossEntropyLoss": ("second", "forward"),
    }.items()
    for column in columns
}


@dataclass(frozen=True)
class Sample:
    """One call, by hand and in torch, as functions of the same tree of arguments."""

    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]
    arguments: Any


@dataclass(frozen=True)
class Operator:
    """An operator or module under torch's name, its samples, and its bad calls."""

    name: str
    samples: Callable[[], Iterable[Sample]]
    errors: Callable[[], Iterable[Sample]]


@dataclass
class Row:
    """How many samples passed in each column, of how many; which did not, and which do not count, and why."""

    name: str
    passed: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def full(self) -> bool:
        """Whether everything passed."""
        return self.passed == self.total


def conformance(
    chosen: Iterable[Operator], columns: Sequence[str] | None = None, limit: int | None = None, progress: bool = False
) -> list[Row]:
    """A row for each operator, from at most `limit` of its samples."""
    bar = tqdm(list(chosen), disable=not progress, unit="operator")
    rows = []
    for operator in bar:
        bar.set_postfix_str(operator.name)
        rows.append(_row(operator, columns or list(COLUMNS), limit))
    return rows


def operators() -> list[Operator]:
    """Every one of torch's operators and modules that has a hand-written counterpart, in torch's order."""
    with from_extra("test"):
        op_db, module_db, _ = private.test_databases()
    functions = [_of_op(op) for op in op_db if _our_function(op.name) and DTYPE in op.supported_dtypes("cpu")]
    modules = [_of_module(info) for info in module_db if _our_class(info) and DTYPE in info.supported_dtypes("cpu")]
    return sorted(functions, key=lambda operator: operator.name) + sorted(modules, key=lambda module: module.name)


def as_markdown(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """The table, its totals, and below it every sample that failed or was left out."""
    columns = columns or list(COLUMNS)
    total = Row("**all**")
    for row in rows:
        total.passed.update(row.passed)
        total.total.update(row.total)
    lines = ["| operator | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for row in [*rows, total]:
        cells = [f"{row.passed[column]} / {row.total[column]}" if row.total[column] else "" for column in columns]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    failures = [f"- {row.name}: {failure}" for row in rows for failure in row.failures]
    left_out = [f"- {row.name}, {count} ×: {reason}" for row in rows for reason, count in row.left_out.items()]
    rounded = [f"- {row.name}: {reason}" for row in rows if (reason := _rounding_of_torch(row.name))]
    for title, items in (
        ("Differing", failures),
        ("Left out", left_out),
        ("Compared to float32's precision", rounded),
    ):
        lines += ["", f"## {title}", "", *(items or ["None."])]
    return "\n".join(lines) + "\n"


@dataclass
class Errors:
    """An operator's errors, in pairs of ours and torch's, of each type and column."""

    name: str
    pairs: dict[tuple[torch.dtype, str], list[tuple[float, float]]] = field(default_factory=dict)

    def ratio(self, dtype: torch.dtype, column: str) -> float | None:
        """Our mean error as a multiple of torch's; None where neither errs, or there is no sample."""
        ours, theirs = (sum(errors) for errors in zip(*self.pairs.get((dtype, column), [(0.0, 0.0)]), strict=True))
        return None if ours == theirs == 0 else ours / theirs if theirs else math.inf


def accuracy(chosen: Iterable[Operator], limit: int | None = None, progress: bool = False) -> list[Errors]:
    """The errors of each operator in NARROW types, over at most `limit` of its samples that leave nothing to chance."""
    bar = tqdm(list(chosen), disable=not progress, unit="operator")
    rows = []
    for operator in bar:
        bar.set_postfix_str(operator.name)
        row = Errors(operator.name)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _plain_attention():
            warnings.simplefilter("ignore")
            torch.manual_seed(SEED)
            for sample in _first(operator.samples(), limit):
                for dtype in NARROW:
                    _add_errors(row, sample, dtype)
        rows.append(row)
    return rows


def accuracy_as_markdown(rows: Sequence[Errors]) -> str:
    """Our mean error over torch's, an operator a row; the median of each column, and what exceeds the factor 2."""
    cells = list(itertools.product(NARROW, ("values", "gradients")))
    heads = [f"{str(dtype).removeprefix('torch.')} {column}" for dtype, column in cells]
    ratios = [[row.ratio(*cell) for cell in cells] for row in rows]
    medians = [
        statistics.median(known) if (known := [r for r in column if r is not None]) else None
        for column in zip(*ratios, strict=True)
    ]
    lines = ["| operator | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, values in [*zip([row.name for row in rows], ratios, strict=True), ("**median**", medians)]:
        lines.append(f"| {name} | " + " | ".join("" if r is None else f"{r:.2f}" for r in values) + " |")
    above = [
        f"- {row.name}, {head}: {ratio:.2f}"
        for row, values in zip(rows, ratios, strict=True)
        for head, ratio in zip(heads, values, strict=True)
        if ratio is not None and ratio > 2
    ]
    return "\n".join([*lines, "", "## Above 2", "", *(above or ["None."])]) + "\n"


# What is compared ------------------------------------------------------------------------------------------


def _values(function: Callable[[Any], Any], arguments: Any) -> list[Tensor]:
    arguments = _fresh(arguments)
    return _tensors(function(arguments)) + _tensors(arguments)


def _gradients(function: Callable[[Any], Any], arguments: Any) -> list[Tensor]:
    arguments = _fresh(arguments)
    outputs, sources = _differentiable(function(arguments)), _differentiable(arguments)
    if not outputs or not sources:
        raise NotApplicable
    return list(torch.autograd.grad(outputs, sources, _directions(outputs), materialize_grads=True))


def _second(function: Callable[[Any], Any], arguments: Any) -> list[Tensor]:
    arguments = _fresh(arguments)
    outputs, sources = _differentiable(function(arguments)), _differentiable(arguments)
    if not outputs or not sources:
        raise NotApplicable
    directions = [direction.requires_grad_() for direction in _directions(outputs)]
    first = torch.autograd.grad(outputs, sources, directions, create_graph=True, materialize_grads=True)
    first = tuple(gradient for gradient in first if gradient.requires_grad)
    if not first:
        raise NotApplicable
    return list(torch.autograd.grad(first, [*sources, *directions], _directions(first), materialize_grads=True))


def _forward(function: Callable[[Any], Any], arguments: Any) -> list[Tensor]:
    arguments = _fresh(arguments)
    if not _differentiable(arguments):
        raise NotApplicable

    def dual(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            return forward_ad.make_dual(leaf.detach(), _direction(leaf))
        return leaf

    with forward_ad.dual_level():
        outputs = [output for output in _tensors(function(private.tree_map(dual, arguments))) if _continuous(output)]
        tangents = [forward_ad.unpack_dual(output).tangent for output in outputs]
        return [torch.zeros_like(y) if t is None else t for y, t in zip(outputs, tangents, strict=True)]


COLUMNS: dict[str, Callable[..., list[Tensor]] | None] = {
    "values": _values,
    "gradients": _gradients,
    "second": _second,
    "forward": _forward,
    "errors": None,
}


class NotApplicable(Exception):
    """A sample has nothing to compare in a column: integers have no gradient."""


def _row(operator: Operator, columns: Sequence[str], limit: int | None) -> Row:
    row = Row(operator.name)
    rounding = 2 * torch.finfo(torch.float32).eps if _rounding_of_torch(operator.name) else ROUNDING
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _plain_attention():
        warnings.simplefilter("ignore")
        torch.manual_seed(SEED)
        for number, sample in enumerate(_first(operator.samples(), limit)):
            if _uses_other_rng_order(sample):
                row.left_out["a matter of chance: torch draws in another order"] += 1
                continue
            for column in columns:
                check = COLUMNS[column]
                if reason := WRONG_IN_TORCH.get((row.name, column)):
                    row.left_out[f"{column}: {reason}"] += 1
                elif check is not None:
                    _compare(row, column, number, sample, check, rounding)
        if "errors" in columns:
            for number, sample in enumerate(_first(operator.errors(), limit)):
                _compare_errors(row, number, sample)
    return row


@contextmanager
def _plain_attention() -> Iterator[None]:
    """torch's attention in plain arithmetic: its fused kernels have neither second gradients nor forward mode."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _compare(
    row: Row, column: str, number: int, sample: Sample, check: Callable[..., list[Tensor]], rounding: float
) -> None:
    expected, actual = _outcome(check, sample.theirs, sample.arguments), _outcome(check, sample.ours, sample.arguments)
    if isinstance(expected, NotApplicable):
        return
    if isinstance(expected, Exception):
        row.left_out[f"{column}: torch itself raises {_summary(expected)}"] += 1
        return
    row.total[column] += 1
    difference = _summary(actual) if isinstance(actual, Exception) else _difference(actual, expected, rounding)
    if difference is None:
        row.passed[column] += 1
    else:
        row.failures.append(f"{column} of sample {number} ({_describe(sample.arguments)}): {difference}")


def _compare_errors(row: Row, number: int, sample: Sample) -> None:
    expected, actual = (_outcome(_values, function, sample.arguments) for function in (sample.theirs, sample.ours))
    if not isinstance(expected, Exception):
        row.left_out["errors: torch itself raises nothing"] += 1
        return
    row.total["errors"] += 1
    if type(actual) is type(expected):
        row.passed["errors"] += 1
    else:
        answer = _summary(actual) if isinstance(actual, Exception) else "an answer"
        row.failures.append(f"error {number} ({_describe(sample.arguments)}): {answer}, but torch {_summary(expected)}")


def _rounding_of_torch(name: str) -> str | None:
    """Why an operator is compared to float32's precision, if it is."""
    return ROUNDED_IN_TORCH.get(name.split(" ")[0].split(".")[-1])


def _uses_other_rng_order(sample: Sample) -> bool:
    """Whether the answer is a matter of chance and torch, from the same seed, gets another of the same kind."""
    once, again = (_outcome(_values, sample.theirs, sample.arguments, seed) for seed in (SEED, SEED + 1))
    if isinstance(once, Exception) or _difference(once, again, ROUNDING) is None:
        return False
    ours = _outcome(_values, sample.ours, sample.arguments)
    same_kind = not isinstance(ours, Exception) and [(t.shape, t.dtype) for t in ours] == [
        (t.shape, t.dtype) for t in once
    ]
    return same_kind and _difference(ours, once, ROUNDING) is not None


def _outcome(
    check: Callable[..., list[Tensor]], function: Callable[[Any], Any], arguments: Any, seed: int = SEED
) -> Any:
    """What a check gives, or the exception that it raises."""
    torch.manual_seed(seed)
    try:
        return check(function, arguments)
    except Exception as error:
        return error


def _difference(actual: list[Tensor], expected: list[Tensor], rounding: float) -> str | None:
    """What is wrong with the answer, or None."""
    if len(actual) != len(expected):
        return f"{len(actual)} tensors instead of {len(expected)}"
    for ours, theirs in zip(actual, expected, strict=True):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"{list(ours.shape)} {ours.dtype} instead of {list(theirs.shape)} {theirs.dtype}"
        if not _continuous(theirs):
            if not torch.equal(ours, theirs):
                return "differs"
            continue
        finite = theirs.detach().abs()[theirs.isfinite()]
        tolerance = rounding * max(1.0, finite.max().item() if finite.numel() else 0.0)
        if not torch.allclose(ours, theirs, rtol=0, atol=tolerance, equal_nan=True):
            return f"differs by {(ours - theirs).abs().max().item():.2g}"
    return None


def _add_errors(row: Errors, sample: Sample, dtype: torch.dtype) -> None:
    """The sample's errors in a narrow type, unless torch has no kernel for it, overflows, or the answer is chance."""
    narrow = private.tree_map(lambda leaf: _in_type(leaf, dtype), sample.arguments)
    exact = private.tree_map(lambda leaf: _in_type(leaf, DTYPE), narrow)
    for column, check in (("values", _values), ("gradients", _gradients)):
        truth, again = (_outcome(check, sample.theirs, exact, seed) for seed in (SEED, SEED + 1))
        ours, theirs = (_outcome(check, function, narrow) for function in (sample.ours, sample.theirs))
        if any([isinstance(outcome, Exception) for outcome in (truth, again, ours, theirs)]):
            continue
        if _difference(truth, again, ROUNDING) is None:
            pair = (_relative_error(ours, truth), _relative_error(theirs, truth))
            if pair[1] < math.inf:
                row.pairs.setdefault((dtype, column), []).append(pair)


def _in_type(leaf: Any, dtype: torch.dtype) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().to(dtype).requires_grad_(leaf.requires_grad)
    return leaf


def _relative_error(tensors: list[Tensor], truth: list[Tensor]) -> float:
    """The largest error among the tensors, as a fraction of the largest magnitude in the truth; ∞ if one overflows."""
    error = scale = 0.0
    for tensor, true in zip(tensors, truth, strict=True):
        finite = true.isfinite()
        if _continuous(true) and not tensor[finite].isfinite().all():
            return math.inf
        if _continuous(true) and finite.any():
            exact = true.detach()[finite]
            error = max(error, (tensor.detach()[finite].to(exact.dtype) - exact).abs().max().item())
            scale = max(scale, exact.abs().max().item())
    relative = error / scale if scale else error
    return relative if relative > ROUNDING else 0.0  # the truth itself is no more certain


# Where samples come from -----------------------------------------------------------------------------------


def _our_function(name: str) -> Callable[..., Any] | None:
    """The hand-written function of an operator's name: nn.functional.relu, softmax."""
    *path, last = name.split(".")
    if path not in ([], ["nn", "functional"]) or (not path and not hasattr(torch, last)):
        return None  # also Tensor.unfold, a view and no relative of torch.nn.functional.unfold
    found = getattr(functional, last, None)
    return found if isinstance(found, types.FunctionType) else None


def _our_class(info: Any) -> type[torch.nn.Module] | None:
    name = info.module_cls.__name__
    found = vars(nn).get(name)
    if issubclass(info.module_cls, LazyModuleMixin):
        return None  # is no function of its parameters before they are there; after that it is another module
    return found if isinstance(found, type) and found.__module__.startswith("torchfromscratch") else None


def _of_op(op: Any) -> Operator:
    ours = _ours_in_place_of(op)

    def sample(given: Any) -> Sample:
        return Sample(
            lambda tree: ours(*tree[0], **tree[1]),
            lambda tree: _without_seeding(op.op, *tree[0], **tree[1]),
            ((given.input, *given.args), given.kwargs),
        )

    def errors() -> Iterator[Sample]:
        return (sample(error.sample_input) for error in op.error_inputs("cpu")) if op.error_inputs_func else iter(())

    return Operator(
        f"{op.name} {op.variant_test_name}".rstrip(),
        lambda: (sample(given) for given in op.sample_inputs("cpu", DTYPE, requires_grad=True)),
        errors,
    )


def _ours_in_place_of(op: Any) -> Callable[..., Any]:
    """Our function, called as the OpInfo calls torch's: directly, with arguments bound, or from a lambda."""
    ours = _our_function(op.name)
    assert ours is not None
    if isinstance(op.op, functools.partial):
        return functools.partial(ours, *op.op.args, **op.op.keywords)
    if not getattr(op.op, "__module__", None) or not op.op.__module__.startswith("torch.testing"):
        return ours
    last = op.name.split(".")[-1]

    def through(*args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(torch.nn.functional, last, mock.Mock(wraps=ours)) as replaced:
            output = _without_seeding(op.op, *args, **kwargs)
        assert replaced.called, f"{op.name} is not called by its name"
        return output

    return through


def _without_seeding(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function's answer from the seed that is set: some OpInfos would set their own."""
    with mock.patch.object(torch, "manual_seed"):
        return function(*args, **kwargs)


def _of_module(info: Any) -> Operator:
    def samples() -> Iterator[Sample]:
        for training in (True, False):
            for given in info.module_inputs_func(
                info, device="cpu", dtype=DTYPE, requires_grad=True, training=training
            ):
                yield _module_sample(info, given, training)

    def errors() -> Iterator[Sample]:
        if info.module_error_inputs_func is None:
            return
        _, _, ModuleErrorEnum = private.test_databases()
        for training in (True, False):
            for error in info.module_error_inputs_func(
                info, device="cpu", dtype=DTYPE, requires_grad=False, training=training
            ):
                given = error.module_error_input
                if error.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
                    yield Sample(
                        lambda tree: _our_class(info)(*tree[0], **tree[1]),  # type: ignore[misc]
                        lambda tree: info.module_cls(*tree[0], **tree[1]),
                        (given.constructor_input.args, given.constructor_input.kwargs),
                    )
                else:
                    yield _module_sample(info, given, training)

    return Operator(f"nn.{info.module_cls.__name__}", samples, errors)


def _module_sample(info: Any, given: Any, training: bool) -> Sample:
    """A module's call as a function of its arguments, parameters and buffers."""

    def build(module_class: Any) -> torch.nn.Module:
        torch.manual_seed(SEED)
        constructor = given.constructor_input
        return module_class(*constructor.args, **constructor.kwargs).to(DTYPE).train(training)

    def call(module: torch.nn.Module) -> Callable[[Any], Any]:
        return lambda tree: torch.func.functional_call(module, tree[2], tree[0], tree[1])

    ours, theirs = build(_our_class(info)), build(info.module_cls)
    state = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    return Sample(call(ours), call(theirs), (given.forward_input.args, given.forward_input.kwargs, state))


# Trees of arguments ----------------------------------------------------------------------------------------


def _fresh(arguments: Any) -> Any:
    """The arguments with tensors of their own: what is called may write into them."""

    def copy_leaf(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.detach().clone().requires_grad_(leaf.requires_grad)
        return copy.deepcopy(leaf)

    return private.tree_map(copy_leaf, arguments)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in private.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _differentiable(tree: Any) -> list[Tensor]:
    return [tensor for tensor in _tensors(tree) if tensor.requires_grad]


def _continuous(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _directions(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [_direction(tensor) for tensor in tensors]


def _direction(tensor: Tensor) -> Tensor:
    """Numbers without a pattern, the same for the same shape."""
    numbers = torch.arange(tensor.numel()) * 89 % 257 - 128
    return (numbers / 64).view(tensor.shape).to(tensor.dtype)


def _first(samples: Iterable[Sample], limit: int | None) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if number == limit:
            return
        yield sample


def _describe(arguments: Any) -> str:
    """The arguments, tensors by their shapes."""
    args, kwargs, *_ = private.tree_map(lambda leaf: list(leaf.shape) if isinstance(leaf, Tensor) else leaf, arguments)
    return ", ".join([*map(str, args), *(f"{name}={value}" for name, value in kwargs.items())])


def _summary(error: Exception) -> str:
    """An exception's type and the beginning of its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:100]}" if message else type(error).__name__
