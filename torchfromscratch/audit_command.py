"""`python -m torchfromscratch audit MODULE:FACTORY`: what becomes of a model whose layers are written by hand."""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from torchfromscratch.comparison import (
    Comparison,
    Step,
    by_hand,
    compare,
    fill_zero_weights,
    peak_memory,
    step_time,
    switch_off_chance,
    take_step,
)
from torchfromscratch.convert import ConversionReport, conversion_report
from torchfromscratch.errors import UserError

DESCRIPTION = """Converts a model to hand-written layers and takes a training step both ways: which layers were
replaced, which built-in kernels are left, how far outputs and gradients are from torch.nn's in float64, time and
memory of both. Dropout is switched off, so that both compute the same, and weights that begin as zeros are filled."""

LABEL = 60  # columns for what stands before the numbers; the longest kernel's name has 57
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
    parser.add_argument("--integers", type=int, metavar="N", help="the input is of whole numbers below N, as for texts")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default float32")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--eval", action="store_true", help="in evaluation mode instead of training mode")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="steps timed; default 3, 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of weights and input; default 0")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    _audit(args)
    return 0


def _audit(args: argparse.Namespace) -> None:
    factory = _find(args.model)
    torch.manual_seed(args.seed)
    model, input = _build(factory, args), _input(args)
    dtype = getattr(torch, args.dtype)
    exact, expected = _reference(model, input, args)
    found = {}
    for precision in dict.fromkeys((exact, dtype)):
        model.to(precision)
        inputs = [_cast(input, precision)]
        with _explained(args):
            found["torch.nn", precision] = compare(model, inputs, expected)
        with by_hand(model):
            conversion = conversion_report(model)
            found["by hand", precision] = compare(model, inputs, expected)
    print(_conversion(conversion))
    print(_kernels(found["torch.nn", dtype].kernels.kernels, found["by hand", dtype].kernels.kernels))
    print(_differences(found, exact, input))
    if args.repetitions > 0:
        print(f"{'one step':{LABEL}}  torch.nn   by hand")
        print(_cost("time", step_time(model, inputs, args.repetitions), 1e-3, "ms"))
        print(_cost("memory", peak_memory(model, inputs), 2**20, "MiB"))


def _reference(model: torch.nn.Module, input: torch.Tensor, args: argparse.Namespace) -> tuple[torch.dtype, Step]:
    """torch.nn's step in float64, or in the dtype asked for where the model or the device has no float64."""
    try:
        return torch.float64, take_step(model.to(torch.float64), [_cast(input, torch.float64)])
    except Exception:
        dtype = getattr(torch, args.dtype)
        with _explained(args):
            return dtype, take_step(model.to(dtype), [input])


@contextmanager
def _explained(args: argparse.Namespace) -> Iterator[None]:
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
    switch_off_chance(model)
    fill_zero_weights(model)
    try:
        return model.to(args.device, getattr(torch, args.dtype)).train(not args.eval)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use --device {args.device}: {error}") from error


def _input(args: argparse.Namespace) -> torch.Tensor:
    if args.integers is not None:
        return torch.randint(max(args.integers, 1), args.input, device=args.device)
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
    lines = [
        f"largest difference from torch.nn in {_name(exact)}, over the largest element, with {_text(input.shape)}:",
        f"{'':{LABEL}}    output  gradient",
    ]
    for (layers, precision), comparison in found.items():
        step = f"{layers}, {_name(precision)}"
        errors = f"{comparison.output_error:10.0e}{comparison.gradient_error:10.0e}"
        lines.append(
            f"  {step:{LABEL - 2}}{errors}  {comparison.gradient_name if comparison.gradient_error else ''}".rstrip()
        )
    return "\n".join(lines)


def _cost(name: str, costs: tuple[float, float], unit: float, symbol: str) -> str:
    torchs, ours = costs
    ratio = f"{ours / torchs:.2f} ×" if torchs else "-"
    return f"  {f'{name} in {symbol}':{LABEL - 2}}{torchs / unit:10.0f}{ours / unit:10.0f}  {ratio}"


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
