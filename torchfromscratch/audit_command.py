"""`python -m torchfromscratch audit MODULE:FACTORY`: what becomes of a model whose layers are written by hand."""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from torchfromscratch.audit import Report
from torchfromscratch.comparison import compare, fill_zero_weights, peak_memory, step_time, switch_off_chance
from torchfromscratch.convert import ConversionReport

DTYPES = ("float32", "float64", "bfloat16", "float16")


class Mistake(Exception):
    """Of the user; the message says what to do."""


def register(subcommands: Any) -> None:
    """Add `audit` to the command line."""
    parser = subcommands.add_parser(
        "audit",
        help="convert a model, and compare a training step with torch.nn's",
        description="Converts a model to hand-written layers and takes a training step both ways: which layers were "
        "replaced, which built-in kernels are left, how far outputs and gradients differ, time and memory of both. "
        "Dropout is switched off, so that both compute the same, and weights that begin as zeros are filled.",
    )
    parser.add_argument("model", metavar="MODULE:FACTORY", help="for example torchvision.models:resnet18")
    parser.add_argument("--input", type=_size, default=(2, 3, 224, 224), metavar="SIZE", help="default 2x3x224x224")
    parser.add_argument("--integers", type=int, metavar="N", help="the input is of whole numbers below N, as for texts")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default float32")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--eval", action="store_true", help="in evaluation mode instead of training mode")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="steps timed; default 3, 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of weights and input; default 0")
    parser.set_defaults(run=_run, parser=parser)


def _run(args: argparse.Namespace) -> int:
    try:
        _audit(args)
    except Mistake as mistake:
        args.parser.exit(2, f"{args.parser.prog}: error: {mistake}\n")
    return 0


def _audit(args: argparse.Namespace) -> None:
    factory = _find(args.model)
    torch.manual_seed(args.seed)
    model = _build(factory, args)
    input = _input(args)
    try:
        comparison = compare(model, [input])
    except Exception as error:
        raise Mistake(
            f"{args.model} cannot take a step with {_describe(input)}: {error}\n"
            "Give it what it needs with --input SIZE, --integers N, --dtype or --eval."
        ) from error
    print(_conversion(comparison.conversion))
    print(_kernels("on torch.nn", comparison.torch_kernels))
    print(_kernels("converted", comparison.kernels))
    print(f"largest difference, over the largest element, with {_describe(input)}:")
    print(f"  output    {comparison.output_error:.1e}")
    print(f"  gradient  {comparison.gradient_error:.1e}  {comparison.gradient_name}")
    if args.repetitions > 0:
        seconds = step_time(model, [input], args.repetitions)
        memory = peak_memory(model, [input])
        print("one step    torch.nn   by hand")
        print(f"  time    {seconds[0] * 1e3:8.0f}  {seconds[1] * 1e3:8.0f} ms   {seconds[1] / seconds[0]:.2f} ×")
        print(
            f"  memory  {memory[0] / 2**20:8.0f}  {memory[1] / 2**20:8.0f} MiB  {memory[1] / max(memory[0], 1):.2f} ×"
        )


def _find(name: str) -> Callable[..., Any]:
    """What `module:factory` names."""
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise Mistake(f"a model is named MODULE:FACTORY, as torchvision.models:resnet18, but got {name!r}")

    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise Mistake(f"cannot import {module_name!r}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            alike = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
            raise Mistake(f"{module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
    return found


def _build(factory: Any, args: argparse.Namespace) -> torch.nn.Module:
    if isinstance(factory, torch.nn.Module):
        model = factory
    elif callable(factory):
        try:
            model = factory()
        except Exception as error:
            raise Mistake(f"{args.model}() fails: {error}; it must need no arguments") from error
    else:
        raise Mistake(f"{args.model} is {factory!r}, which cannot be called")
    if not isinstance(model, torch.nn.Module):
        raise Mistake(f"{args.model} gives {model!r}, which is no torch.nn.Module")
    switch_off_chance(model)
    fill_zero_weights(model)
    try:
        return model.to(args.device, getattr(torch, args.dtype)).train(not args.eval)
    except (RuntimeError, AssertionError) as error:
        raise Mistake(f"cannot use --device {args.device}: {error}") from error


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


def _kernels(when: str, report: Report) -> str:
    kernels = ", ".join(f"{count} {kernel}" for kernel, count in report.kernels.most_common())
    return f"built-in layer kernels in a step {when}: {kernels or 'none'}"


def _describe(input: torch.Tensor) -> str:
    return f"{str(input.dtype).removeprefix('torch.')} of {'x'.join(str(size) for size in input.shape)}"


def _size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(int(number) for number in text.split("x"))
    except ValueError:
        size = (0,)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"a size is written 2x3x224x224, but got {text!r}")
    return size
