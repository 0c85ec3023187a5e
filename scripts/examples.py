"""Run what the lecture notes claim of layers and networks, and print what comes out."""

import inspect

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.command_line import Parser, require_known
    from torchfromscratch.notes.demonstrations import DEMONSTRATIONS


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(DEMONSTRATIONS)}")
    names = parser.parse_args().names or list(DEMONSTRATIONS)
    require_known("example", names, list(DEMONSTRATIONS))
    for name in names:
        rows = DEMONSTRATIONS[name]()
        width = max(len(label) for label, _ in rows)
        print(f"{name}\n{inspect.getdoc(DEMONSTRATIONS[name])}\n")
        print("\n".join(f"  {label:<{width}}   {value}" for label, value in rows), end="\n\n")


if __name__ == "__main__":
    run(main)
