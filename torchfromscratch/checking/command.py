"""`torchfromscratch check FILE.py:NAME --like conv2d`: what is wrong with a backward pass, and which mistake it is."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torchfromscratch.audit import audit
from torchfromscratch.checking.checks import check
from torchfromscratch.checking.layers import LAYERS, CannotCheckError, find
from torchfromscratch.command_line import at_least, seed
from torchfromscratch.errors import UserError

DESCRIPTION = """Calls a function of yours on small cases beside the formula of the layer that it should be: its output,
its gradients, the gradients of those, and how it treats memory. What is wrong is shown in the smallest case, with the
name of the mistake that gives such numbers.

Exit code: 0 if all is right, 1 if something is wrong, 2 if it cannot be checked."""

EPILOG = f"""layers: {", ".join(LAYERS)}"""


def register(subcommands: Any) -> None:
    """Add `check` to the command line."""
    parser = subcommands.add_parser(
        "check",
        help="what is wrong with a backward pass of yours, and which mistake it is",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "function", nargs="?", metavar="FILE.py:NAME", help="a Function, a function or a module, as layers.py:MyConv2d"
    )
    parser.add_argument("--like", metavar="LAYER", help="what it should be, as conv2d")
    parser.add_argument("--torch", action="store_true", help="check the installed torch.nn.functional itself")
    parser.add_argument("--device", default="cpu", help="with --torch: cpu, cuda or mps; default cpu")
    parser.add_argument("--cases", type=at_least(1), default=200, metavar="N", help="cases that are drawn; default 200")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the cases; default 0")
    parser.add_argument("--no-double", action="store_true", help="leave out second derivatives")
    parser.add_argument("--by-hand", action="store_true", help="refuse a function that calls a built-in layer")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.torch and args.function:
        raise UserError(f"--torch checks the installed torch, not {args.function}: leave one of them out")
    if args.torch:
        return _check_torch(args)
    if not args.function or not args.like:
        raise UserError("name a function and what it should be, as in: check layers.py:MyConv2d --like conv2d")
    with audit() if args.by_hand else nullcontext():
        function = load(args.function)
        try:
            report = check(function, args.like, double=not args.no_double, cases=args.cases, seed=args.seed)
        except SystemExit as error:
            raise CannotCheckError(f"{args.function} exits with {error.code!r}") from error
    print(json.dumps(report.as_dict(), indent=1, default=str) if args.json else report)
    return int(not report.ok)


def _check_torch(args: argparse.Namespace) -> int:
    from torchfromscratch.checking.installation import check_torch

    names = [find(args.like).name] if args.like else []
    found, wrong = [], False
    for name, dtype, report in check_torch(names, args.device, args.cases, args.seed):
        label = f"{name}, {str(dtype).removeprefix('torch.')}"
        if isinstance(report, str):
            found.append({"layer": name, "dtype": str(dtype), "refused": report})
            line = f"{label}: cannot be checked: {report}"
        else:
            found.append({"layer": name, "dtype": str(dtype), **report.as_dict()})
            line = (
                f"{label}: right in {report.cases} cases"
                if report.ok
                else f"{label}: WRONG\n{report}\n{_programs(report)}"
            )
            wrong = wrong or not report.ok
        if not args.json:
            print(line, flush=True)
    if args.json:
        print(json.dumps(found, indent=1, default=str))
    return int(wrong)


def _programs(report: Any) -> str:
    """A program for each different case."""
    programs = dict.fromkeys(finding.program for finding in report.findings)
    return "\n".join(f"    {line}" for program in programs for line in ["", *program.splitlines()])


def load(name: str) -> Any:
    """What FILE.py:NAME or MODULE:NAME names."""
    place, colon, attribute = name.rpartition(":")
    if not (place and colon and attribute):
        raise CannotCheckError(f"a function is named FILE.py:NAME, as layers.py:MyConv2d, but got {name!r}")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise CannotCheckError(f"cannot import {place}: {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CannotCheckError(f"{place} has no {attribute!r}")
        found = getattr(found, part)
    return found


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))  # what lies beside it can be imported
    spec.loader.exec_module(module)
    return module
