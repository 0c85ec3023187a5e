"""`python -m torchfromscratch audit MODULE:FACTORY`: what becomes of a model whose layers are written by hand."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from torchfromscratch.command_line import at_least, seed
from torchfromscratch.comparison import (
    Comparison,
    Step,
    by_hand,
    compare,
    disable_dropout,
    fill_zero_weights,
    peak_memory,
    step_time,
    take_step,
)
from torchfromscratch.convert import ConversionReport, conversion_report
from torchfromscratch.errors import UserError

DESCRIPTION = """Converts a model to hand-written layers and takes a training step both ways: which layers were
replaced, which built-in kernels are left, how far outputs and gradients are from torch.nn's in float64, time and
memory of both. Dropout is switched off, so that both compute the same, and weights that begin as zeros are filled.

Columns: torch.nn is the model as it is, by hand the model after torchfromscratch.convert. Kernels are counted. How far
a step is from torch.nn's in float64 is told of torch.nn too: a difference in float32 that both have is rounding."""

LABEL = 60  # columns for what stands before the numbers; the longest kernel's name has 57
ROUNDING = """\
  Each number is the largest difference of an element over the largest element of its tensor: of the outputs, and of
  the gradient of the parameter that differs most, by hand the one that is named. The left column is torch.nn's own
  rounding. Where it is large as well, the model loses these digits whichever layers compute it: compare the columns."""
DTYPES = ("float32", "float64", "bfloat16", "float16")


def register(subcommands: Any) -> None:
    """Add `audit` to the command line."""
    parser = subcommands.add_parser(
        "audit",
        help="convert a model, and compare a training step with torch.nn's",
        description=DESCRIPTION,
    )
    parser.add_argument("model", metavar="MODULE:FACTORY", help="for example torchvision.models:resnet18")
    parser.add_argument("--input", type=_size, default=(2, 3, 224, 224), metavar="SIZE", help="default 2x3x224x224")
    parser.add_argument(
        "--integers", type=at_least(1), metavar="N", help="the input is of whole numbers below N, as for texts"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default float32")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--eval", action="store_true", help="in evaluation mode instead of training mode")
    parser.add_argument(
        "--repetitions", type=at_least(0), default=3, metavar="N", help="steps timed; default 3, 0 for none"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of weights and input; default 0")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    _audit(args)
    return 0


def _audit(args: argparse.Namespace) -> None:
    factory = _find(args.model)
    torch.manual_seed(args.seed)
    dtype = getattr(torch, args.dtype)
    with _progress() as tell:
        tell(f"building {args.model}")
        model, input = _build(factory, args), _input(args)
        tell("a step of torch.nn in float64, to measure the others by")
        exact, expected = _reference(model, input, args)
        found = {}
        for precision in dict.fromkeys((exact, dtype)):
            model.to(precision)
            inputs = [_cast(input, precision)]
            tell(f"a step of torch.nn in {_name(precision)}")
            with _explain_errors(args):
                found["torch.nn", precision] = compare(model, inputs, expected)
            tell(f"a step by hand in {_name(precision)}")
            with by_hand(model):
                conversion = conversion_report(model)
                found["by hand", precision] = compare(model, inputs, expected)
        tell("")
        print(_conversion(conversion))
        print(_kernels(found["torch.nn", dtype].kernels.kernels, found["by hand", dtype].kernels.kernels))
        print(_differences(found, exact, input))
        if args.repetitions:
            tell(f"{args.repetitions} steps of each for their time, and one for its memory")
            costs = step_time(model, inputs, args.repetitions), peak_memory(model, inputs)
            tell("")
            print(_costs(*costs, args.repetitions))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A function that shows, on a terminal, what is being done and since when; "" takes it away."""
    start = time.perf_counter()

    def tell(text: str) -> None:
        if sys.stderr.isatty():
            line = f"{time.perf_counter() - start:4.0f} s  {text} …" if text else ""
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        tell("")


def _reference(model: torch.nn.Module, input: torch.Tensor, args: argparse.Namespace) -> tuple[torch.dtype, Step]:
    """torch.nn's step in float64, or in the dtype asked for where the model or the device has no float64."""
    try:
        return torch.float64, take_step(model.to(torch.float64), [_cast(input, torch.float64)])
    except Exception:
        dtype = getattr(torch, args.dtype)
        with _explain_errors(args):
            return dtype, take_step(model.to(dtype), [input])


@contextmanager
def _explain_errors(args: argparse.Namespace) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        kind = args.dtype if args.integers is None else "integers"
        raise UserError(
            f"{args.model} cannot take a step with {kind} of {_text(args.input)}: {error}; "
            "give it what it needs with --input SIZE, --integers N, --dtype or --eval."
        ) from error


def _find(name: str) -> Callable[..., Any]:
    """What `module:factory` names."""
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UserError(f"a model is named MODULE:FACTORY, as torchvision.models:resnet18, but got {name!r}")

    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"cannot import {module_name!r}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            alike = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
            raise UserError(f"{module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
    return found


def _build(factory: Any, args: argparse.Namespace) -> torch.nn.Module:
    if isinstance(factory, torch.nn.Module):
        model = factory
    elif callable(factory):
        try:
            model = factory()
        except Exception as error:
            raise UserError(f"{args.model}() fails: {error}; it is called without arguments") from error
    else:
        raise UserError(f"{args.model} is {factory!r}, which cannot be called")
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"{args.model} gives {model!r}, which is no torch.nn.Module")
    disable_dropout(model)
    fill_zero_weights(model)
    try:
        return model.to(args.device, getattr(torch, args.dtype)).train(not args.eval)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use --device {args.device}: {error}") from error


def _input(args: argparse.Namespace) -> torch.Tensor:
    if args.integers is not None:
        return torch.randint(args.integers, args.input, device=args.device)
    return torch.randn(args.input, device=args.device, dtype=getattr(torch, args.dtype))


def _conversion(report: ConversionReport) -> str:
    replaced = Counter(report.by_hand.values()).most_common()
    lines = [
        f"{len(report.by_hand)} layers replaced: {', '.join(f'{count} {name}' for name, count in replaced) or '-'}"
    ]
    lines += [f"  left: {name or '(the model)'}: {reason}" for name, reason in report.left.items()]
    return "\n".join(lines)


def _kernels(torchs: Counter[str], ours: Counter[str]) -> str:
    lines = [f"{'built-in layer kernels in a step':{LABEL}}  torch.nn   by hand"]
    lines += [f"  {kernel:{LABEL - 2}}{count:10}{ours[kernel]:10}" for kernel, count in (torchs | ours).most_common()]
    return "\n".join([*lines, f"  {'all':{LABEL - 2}}{torchs.total():10}{ours.total():10}"])


def _differences(found: dict[tuple[str, torch.dtype], Comparison], exact: torch.dtype, input: torch.Tensor) -> str:
    told = f"distance from torch.nn's step in {_name(exact)}, {_text(input.shape)}"
    lines = [f"{told:{LABEL}}  torch.nn   by hand"]
    for precision in dict.fromkeys(precision for _, precision in found):
        torchs, ours = found["torch.nn", precision], found["by hand", precision]
        name = f"  {ours.gradient_name}" if ours.gradient_error else ""
        output, gradient = f"output in {_name(precision)}", f"worst gradient in {_name(precision)}"
        lines += [
            f"  {output:{LABEL - 2}}{_error(torchs.output_error)}{_error(ours.output_error)}",
            f"  {gradient:{LABEL - 2}}{_error(torchs.gradient_error)}{_error(ours.gradient_error)}{name}",
        ]
    return "\n".join([*lines, ROUNDING])


def _error(error: float) -> str:
    return f"{error:10.0e}" if error else f"{0:10}"


def _costs(seconds: tuple[float, float], memory: tuple[int, int], repetitions: int) -> str:
    lines = [
        f"{'one step':{LABEL}}  torch.nn   by hand",
        _cost(f"time in ms, the fastest of {repetitions}", seconds, 1e-3),
        _cost("memory in MiB, at most beside model and input", memory, 2**20),
    ]
    return "\n".join(lines)


def _cost(name: str, costs: tuple[float, float], unit: float) -> str:
    torchs, ours = costs
    ratio = f"{ours / torchs:.2f} ×" if torchs else "-"
    return f"  {name:{LABEL - 2}}{torchs / unit:10.0f}{ours / unit:10.0f}  {ratio}"


def _cast(input: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return input.to(dtype) if input.is_floating_point() else input


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(size: Sequence[int]) -> str:
    return "x".join(str(number) for number in size)


def _size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(number) for number in text.split("x"))
    except ValueError:
        size = (0,)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"a size is written 2x3x224x224, but got {text!r}")
    return size
