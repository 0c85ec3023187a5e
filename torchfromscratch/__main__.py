"""`python -m torchfromscratch COMMAND`: each command registers itself."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from torchfromscratch.entry_point import run

# Modules with a function `register(subcommands)`, which adds a parser whose default `run(args)` returns
# the exit code.
COMMANDS = ("torchfromscratch.audit_command", "torchfromscratch.explain.command")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the command: 0 if all went well, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m torchfromscratch", description=__doc__)
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(name).register(subcommands)
    args = parser.parse_args(argv)
    return int(args.run(args))


if __name__ == "__main__":
    run(main)
