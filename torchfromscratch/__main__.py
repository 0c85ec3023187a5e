"""`torchfromscratch COMMAND`, or `python -m torchfromscratch COMMAND`: each command registers itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from torchfromscratch import __version__
from torchfromscratch.command_line import Parser
from torchfromscratch.entry_point import NAME, run

# Modules with a function `register(subcommands)`, which adds a parser whose default `run(args)` returns
# the exit code.
COMMANDS = (
    "torchfromscratch.audit_command",
    "torchfromscratch.checking.command",
    "torchfromscratch.explaining.command",
)

DESCRIPTION = """PyTorch's layers with every forward and backward pass written by hand, equal to torch.nn and drop-in.
These commands show what the layers compute, and what they make of a model of yours."""

EPILOG = """examples:
  {prog} explain conv2d --input 4x4 --kernel 3x3
  {prog} explain lstm --html lstm.html
  {prog} audit torchvision.models:resnet18

In Python, `from torchfromscratch import nn` stands for `from torch import nn`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the command: 0 if all went well, 2 for a mistake of the user."""
    prog = NAME if Path(sys.argv[0]).stem == NAME else f"python -m {NAME}"
    parser = Parser(prog=prog, description=DESCRIPTION, epilog=EPILOG.format(prog=prog))
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}, torch {torch.__version__}")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(name).register(subcommands)
    args = parser.parse_args(argv)
    return int(args.run(args))


def command() -> NoReturn:
    """What installation puts on the path as `torchfromscratch`."""
    run(main)


if __name__ == "__main__":
    command()
