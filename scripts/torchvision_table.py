"""Every classification model of torchvision, by hand: does it compute the same, and is nothing built in left?

    python scripts/torchvision_table.py                    # docs/torchvision.md; hours on two CPU cores
    python scripts/torchvision_table.py resnet18 vit_b_16  # these again, the others as they were

One step of each in float64 and training mode, dropout and stochastic depth switched off, two small pictures:
converted with `torchfromscratch.convert`, and unconverted inside `torchfromscratch.from_scratch()`. A row is
written as soon as it is known, so that the command can be stopped and continued.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import torch
import torchvision

from torchfromscratch.comparison import compare, fill_zero_weights, switch_off_chance

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "torchvision.md"
ROWS = ROOT / "runs" / "torchvision.json"
TOLERANCE = 1e-6

# The side of the pictures, and what makes the model take it: 64 for most, to keep the command short.
SIZE = 64
SIZES = {"inception_v3": 299, "maxvit_t": 224, "vit_h_14": 28}
OPTIONS = {"vit_b_16": {"image_size": 64}, "vit_b_32": {"image_size": 64}, "vit_l_16": {"image_size": 64}}
OPTIONS |= {"vit_l_32": {"image_size": 64}, "vit_h_14": {"image_size": 28}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="only these; otherwise all that have no row yet")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = torchvision.models.list_models(module=torchvision.models)
    if unknown := set(args.models) - set(names):
        parser.error(f"no classification model of torchvision: {', '.join(sorted(unknown))}")
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    for name in args.models or [name for name in names if name not in rows]:
        start = time.perf_counter()
        rows[name] = row(name)
        print(f"{name}: {rows[name]} ({time.perf_counter() - start:.0f} s)", flush=True)
        ROWS.parent.mkdir(exist_ok=True)
        ROWS.write_text(json.dumps(rows, indent=1))
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(table(rows))
    return 0 if all(holds(row) for row in rows.values()) else 1


def row(name: str) -> dict:
    """What a step of the model shows, both ways."""
    torch.manual_seed(0)
    size = SIZES.get(name, SIZE)
    model = build(name)
    pictures = torch.randn(2, 3, size, size, dtype=torch.float64)
    found: dict = {"parameters": sum(parameter.numel() for parameter in model.parameters()), "size": size}
    for way in ("convert", "from_scratch"):
        comparison = compare(model, [pictures], way)
        found[way] = {
            "output": comparison.output_error,
            "gradient": comparison.gradient_error,
            "worst": comparison.gradient_name,
            "buffers": comparison.buffer_error,
            "kernels": dict(comparison.kernels.kernels),
        }
        gc.collect()
    return found


def build(name: str) -> torch.nn.Module:
    """The model in float64 and training mode, chance switched off, no gradient zero from the start."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, **options, **OPTIONS.get(name, {}))
    switch_off_chance(model)
    fill_zero_weights(model)
    return model.double().train()


def holds(row: dict) -> bool:
    """Whether both ways compute the same with nothing built in."""
    ways = [row[way] for way in ("convert", "from_scratch")]
    return all(max(way["output"], way["gradient"], way["buffers"]) <= TOLERANCE and not way["kernels"] for way in ways)


def table(rows: dict) -> str:
    """The rows as Markdown."""
    lines = [
        "# torchvision's classification models, by hand",
        "",
        f"`python scripts/torchvision_table.py`, torch {torch.__version__}, torchvision {torchvision.__version__}: "
        f"{sum(holds(row) for row in rows.values())} of the {len(rows)} models measured hold; torchvision has "
        f"{len(torchvision.models.list_models(module=torchvision.models))}.",
        "",
        "One step in float64 and training mode, two pictures of the size given, dropout and stochastic depth switched "
        "off, weights that begin as zeros filled. "
        "Errors are the largest difference from torch.nn over the largest element, of the output, of the worst "
        f"parameter's gradient and of the worst buffer; a model holds if they are at most {TOLERANCE:.0e} and no "
        "built-in layer kernel runs, forward or backward. What is below 1e-6 of the largest gradient (or buffer) of "
        "the model is measured on that bound: it is zero but for rounding.",
        "",
        "| model | parameters | size | convert: output | gradient | buffers | built in | from_scratch: output "
        "| gradient | buffers | built in | holds |",
        "| --- | --: | --: | --: | --: | --: | --- | --: | --: | --: | --- | --- |",
    ]
    for name, row in sorted(rows.items()):
        cells = [name, f"{row['parameters'] / 1e6:.1f} M", f"{row['size']}²"]
        for way in (row["convert"], row["from_scratch"]):
            cells += [f"{way[error]:.0e}" for error in ("output", "gradient", "buffers")]
            cells.append(", ".join(f"{count} {kernel}" for kernel, count in way["kernels"].items()) or "none")
        lines.append(f"| {' | '.join([*cells, 'yes' if holds(row) else 'no'])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
