"""Put PyTorch's own samples to the hand-written layers and write the table to docs/conformance.md.

python scripts/conformance.py [name ...]
"""

import argparse
import sys
from pathlib import Path

from torchfromscratch.conformance import as_markdown, conformance, operators

DOCUMENT = Path(__file__).parent.parent / "docs" / "conformance.md"
HEAD = """# Conformance

PyTorch's own samples of how each operator and module is used, put to the hand-written ones in float64: passed /
total. How samples are compared stands at the top of `torchfromscratch/conformance.py`. This file is written by

    python scripts/conformance.py

"""


def main() -> int:
    """Print the table; write it down unless only some operators were asked for. 1 if a sample differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only operators whose name contains one of these")
    names = parser.parse_args().names
    try:
        chosen = [operator for operator in operators() if not names or any(name in operator.name for name in names)]
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    rows = conformance(chosen, progress=True)
    table = as_markdown(rows)
    print(table)
    if not names:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(HEAD + table, encoding="utf-8")
    return 0 if all(row.full for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
