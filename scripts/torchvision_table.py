"""Every model of torchvision, by hand: does it compute the same, and is nothing built in left?

    python scripts/torchvision_table.py                    # docs/torchvision.md: all models that have no row yet
    python scripts/torchvision_table.py resnet18 vit_b_16  # these again, the others as they were

One step of each in float64 and training mode, chance switched off: converted with `torchfromscratch.convert`, and
unconverted inside `torchfromscratch.from_scratch()`. A row is written as soon as it is known, so that the command
can be stopped and continued. The two largest models need 12 GB of memory.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torchfromscratch.entry_point import loading, run

with loading():
    import torch
    import torchvision
    from torchvision import models
    from torchvision.models.optical_flow import raft
    from torchvision.models.optical_flow._utils import make_coords_grid

    from torchfromscratch.command_line import Parser, require_known
    from torchfromscratch.comparison import (
        Comparison,
        by_hand,
        compare,
        disable_dropout,
        fill_zero_weights,
        take_step,
    )

TABLE = Path(__file__).resolve().parent.parent / "docs" / "torchvision.md"
TOLERANCE = 1e-6

CHAPTERS = {
    "Classification": models,
    "Segmentation": models.segmentation,
    "Detection": models.detection,
    "Video": models.video,
    "Optical flow": models.optical_flow,
    "Quantization, before the weights become integers": models.quantization,
}
VERSIONS = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
INTRODUCTION = f"""\
# torchvision's models, by hand

`python scripts/torchvision_table.py`, {VERSIONS}.

One step in float64 and training mode on random input of the size given, dropout and stochastic depth switched off,
weights that begin as zeros filled. Errors are the largest difference from torch.nn over the largest element, of the
outputs, of the worst parameter's gradient and of the worst buffer; a model holds if they are at most {TOLERANCE:.0e}
and no built-in layer kernel runs, forward or backward. What is below 1e-6 of the largest gradient (or buffer) of the
model is measured on that bound: it is zero but for rounding.

What is no layer of torch.nn stays as it is, and audit() lets it pass: sampling of pictures at any place
(`grid_sample`) and torchvision's own operators (`nms`, `roi_align`). The quantizable models are those that
`get_model` gives; with `quantize=True` they have integers for weights and no gradients, and `convert` leaves their
layers to torch and says so. torchvision itself computes in float32 RAFT's grid of coordinates, which the command
makes in float64, and one loss of the R-CNNs.
"""
HEAD = """\
| model | parameters | input | convert: output | gradient | buffers | built in \
| from_scratch: output | gradient | buffers | built in | holds |
| --- | --: | --: | --: | --: | --: | --- | --: | --: | --: | --- | --- |
"""

# What a model is called with; most take small pictures, to keep the command short.
SIZE = 2, 3, 64, 64
SIZES = {
    "inception_v3": (2, 3, 299, 299),
    "maxvit_t": (2, 3, 224, 224),
    **dict.fromkeys(models.list_models(models.video), (2, 3, 4, 64, 64)),
    **dict.fromkeys(["mvit_v1_b", "mvit_v2_s", "s3d"], (1, 3, 16, 224, 224)),
    "quantized_inception_v3": (2, 3, 299, 299),
    "raft_large": (1, 3, 128, 128),
    "raft_small": (1, 3, 128, 128),
    "vit_h_14": (2, 3, 28, 28),
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"image_size": SIZES.get(name, SIZE)[-1]} for name in models.list_models(models, include="vit_*")},
    **{name: {"init_weights": False} for name in models.list_models(include=["*googlenet", "*inception_v3"])},
    **{name: {"weights_backbone": None} for name in models.list_models(models.segmentation)},
    **{name: {"weights_backbone": None, "min_size": 64} for name in models.list_models(models.detection)},
    **{name: {"weights_backbone": None} for name in models.list_models(models.detection, include="ssd*")},
}


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these; default: all that have no row yet")
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        metavar="N",
        help="CPU threads (default: torch's choice)",
    )
    args = parser.parse_args()
    if args.threads < 1:
        parser.error("--threads must be at least 1")
    torch.set_num_threads(args.threads)
    names = [name for module in CHAPTERS.values() for name in models.list_models(module)]
    require_known("model of torchvision", args.models, names)
    rows = known_rows()
    for name in args.models or [name for name in names if name not in rows]:
        start = time.perf_counter()
        rows[name] = row(name)
        print(f"{rows[name]} {time.perf_counter() - start:.0f} s", flush=True)
        TABLE.write_text(document(rows), encoding="utf-8")
    return 0 if all(holds(row) for row in rows.values()) else 1


def known_rows() -> dict[str, str]:
    """The table's rows by their models' names, unless they were measured with other versions."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
    rows = [line for line in text.splitlines() if line.startswith("| ")] if VERSIONS in text else []
    return {name: row for row in rows if (name := row.split()[1]) in models.list_models()}


def row(name: str) -> str:
    """What a step of the model shows, both ways, as a row of the table."""
    torch.manual_seed(0)
    model = build(name)
    inputs = example(name)
    expected = take_step(model, inputs)
    comparisons = []
    for how in ("convert", "from_scratch"):
        with by_hand(model, how):
            comparisons.append(compare(model, inputs, expected))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    cells = [name, f"{millions:.1f} M", "×".join(map(str, SIZES.get(name, SIZE)))]
    for comparison in comparisons:
        errors = comparison.output_error, comparison.gradient_error, comparison.buffer_error
        kernels = ", ".join(f"{count} {kernel}" for kernel, count in comparison.kernels.kernels.most_common())
        cells += [*(f"{error:.0e}" for error in errors), kernels or "none"]
    return f"| {' | '.join([*cells, 'yes' if all(map(equal_and_by_hand, comparisons)) else 'no'])} |"


def build(name: str) -> torch.nn.Module:
    """The model in float64 and training mode, chance switched off, no gradient zero from the start."""
    raft.make_coords_grid = lambda *sizes, **options: make_coords_grid(*sizes, **options).double()  # is float32
    model = models.get_model(name, weights=None, **OPTIONS.get(name, {}))
    disable_dropout(model)
    fill_zero_weights(model)
    return model.double().train()


def example(name: str) -> list[Any]:
    """What the model is called with."""
    pictures = torch.rand(SIZES.get(name, SIZE), dtype=torch.float64)
    if name.startswith("raft"):
        return [pictures, pictures.roll(2, -1)]
    if name in models.list_models(models.detection):
        target = {
            "boxes": torch.tensor([[8.0, 8, 40, 40], [20, 10, 60, 50]], dtype=torch.float64),
            "labels": torch.tensor([1, 1]),
            "masks": (torch.rand(2, 64, 64) < 0.5).byte(),
            "keypoints": torch.cat([torch.rand(2, 17, 2) * 60, torch.ones(2, 17, 1)], -1),
        }
        return [list(pictures), [target, target]]
    return [pictures]


def equal_and_by_hand(comparison: Comparison) -> bool:
    errors = comparison.output_error, comparison.gradient_error, comparison.buffer_error
    return max(errors) <= TOLERANCE and not comparison.kernels


def holds(row: str) -> bool:
    return row.endswith("| yes |")


def document(rows: dict[str, str]) -> str:
    """The rows as a document in Markdown."""
    text = INTRODUCTION
    for chapter, module in CHAPTERS.items():
        names = models.list_models(module)
        measured = [rows[name] for name in names if name in rows]
        held = sum(map(holds, measured))
        text += f"\n## {chapter}: {held} of {len(names)} hold\n\n{HEAD}" + "".join(f"{row}\n" for row in measured)
    return text


if __name__ == "__main__":
    run(main)
