"""Run what the lecture notes claim: `python scripts/examples.py [NAME ...]`, all of them without a name."""

import argparse
import inspect

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.notes.demonstrations import DEMONSTRATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DEMONSTRATIONS)}")
    names = parser.parse_args().names or list(DEMONSTRATIONS)
    if unknown := [name for name in names if name not in DEMONSTRATIONS]:
        parser.error(f"unknown example {unknown[0]}; there are {', '.join(DEMONSTRATIONS)}")
    for name in names:
        rows = DEMONSTRATIONS[name]()
        width = max(len(label) for label, _ in rows)
        print(f"{name}\n{inspect.getdoc(DEMONSTRATIONS[name])}\n")
        print("\n".join(f"  {label:<{width}}   {value}" for label, value in rows), end="\n\n")


if __name__ == "__main__":
    run(main)
