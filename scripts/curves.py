"""Put finished runs of train_cifar.py beside each other: a table, and their curves in one picture.

    python scripts/curves.py runs/cifar10-* --output docs/curves.svg

A line of the table is for runs that differ in their seeds only. Minutes are those of training steps alone.
"""

from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.command_line import Parser
    from torchfromscratch.training.curves import picture, read_run, table


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/curves.svg"), metavar="FILE", help="the picture; default: %(default)s"
    )
    options = parser.parse_args()
    runs = [read_run(directory) for directory in options.runs]
    print(table(runs))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture(runs).svg(), encoding="utf-8")
    print(f"\nwritten: {options.output}")


if __name__ == "__main__":
    run(main)
