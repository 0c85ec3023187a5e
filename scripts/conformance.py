"""Put PyTorch's own samples to the hand-written layers and write the table to docs/conformance.md.

python scripts/conformance.py [name ...]

With --accuracy, their errors in float32, bfloat16 and float16 beside torch's, to docs/accuracy.md.
"""

import argparse
from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.conformance import accuracy, accuracy_as_markdown, as_markdown, conformance, operators

DOCS = Path(__file__).parent.parent / "docs"
CONFORMANCE = """# Conformance

PyTorch's own samples of how each operator and module is used, put to the hand-written ones in float64: passed /
total. How samples are compared stands at the top of `torchfromscratch/conformance.py`. This file is written by

    python scripts/conformance.py

"""
ACCURACY = """# Accuracy

The error of the hand-written layers as a multiple of torch's, both against torch's answer in float64 to the same
rounded inputs, over PyTorch's own samples: the mean of each sample's largest error, relative to the largest magnitude
in the answer. Empty where neither errs, where torch has no kernel for the type, and where the answer is a matter of
chance. What is required is at most 2, but for convolutions in float32 at most 8. This file is written by

    python scripts/conformance.py --accuracy

"""
ENOUGH = 50  # samples of an operator that tell its accuracy: max pooling alone has thousands


def main() -> int:
    """Print the table; write it down unless only some operators were asked for. 1 if a sample differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only operators whose name contains one of these")
    parser.add_argument("--accuracy", action="store_true", help="compare errors in narrower types")
    args = parser.parse_args()
    found = operators()
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
        document.write_text(head + table, encoding="utf-8")
    return 0 if full else 1


if __name__ == "__main__":
    run(main)
