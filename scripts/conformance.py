"""Put PyTorch's own samples to the hand-written layers and write the table to docs/conformance.md.

    python scripts/conformance.py               # all of them; half an hour on two CPU cores
    python scripts/conformance.py conv pool     # some, to read: nothing is written
    python scripts/conformance.py --accuracy    # errors in narrow types beside torch's, to docs/accuracy.md

Exit codes: 0 all samples agree, 1 some differ, 2 something for you to put right.
"""

from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.benchmark import measured_with
    from torchfromscratch.command_line import Parser
    from torchfromscratch.conformance import accuracy, accuracy_as_markdown, as_markdown, conformance, operators

DOCS = Path(__file__).parent.parent / "docs"
CONFORMANCE = """# Conformance

PyTorch's own samples of how each operator and module is used, put to the hand-written ones in float64: passed /
total. How samples are compared stands at the top of `torchfromscratch/conformance.py`. This file is written by

    python scripts/conformance.py

{}

"""
ACCURACY = """# Accuracy

The error of the hand-written layers as a multiple of torch's, both against torch's answer in float64 to the same
rounded inputs, over PyTorch's own samples: the mean of each sample's largest error, relative to the largest magnitude
in the answer. Empty where neither errs, where torch has no kernel for the type or overflows in it, and where the answer
is a matter of chance. What is required is at most 2, but for convolutions in float32 at most 8. This file is written by

    python scripts/conformance.py --accuracy

{}

"""
ENOUGH = 50  # samples of an operator that tell its accuracy: max pooling alone has thousands


def main() -> int:
    """Print the table; write it down unless only some operators were asked for. 1 if a sample differs."""
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only operators whose name contains one of these")
    parser.add_argument("--accuracy", action="store_true", help="compare errors in narrower types")
    args = parser.parse_args()
    found = operators()
    for name in args.names:
        if not any(name in operator.name for operator in found):
            known = sorted({operator.name for operator in found})
            parser.error(f"no operator has {name!r} in its name; there are {', '.join(known)}")
    chosen = [operator for operator in found if not args.names or any(name in operator.name for name in args.names)]
    if args.accuracy:
        table, full = accuracy_as_markdown(accuracy(chosen, limit=ENOUGH, progress=True)), True
        document, head = DOCS / "accuracy.md", ACCURACY
    else:
        rows = conformance(chosen, progress=True)
        table, full = as_markdown(rows), all(row.full for row in rows)
        document, head = DOCS / "conformance.md", CONFORMANCE
    print(table)
    if not args.names:
        document.parent.mkdir(exist_ok=True)
        document.write_text(head.format(measured_with("torch")) + table, encoding="utf-8")
    return 0 if full else 1


if __name__ == "__main__":
    run(main)
