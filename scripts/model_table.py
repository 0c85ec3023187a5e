"""Every model of a library, by hand: does it compute the same, and is nothing built in left?

    python scripts/model_table.py torchvision                    # docs/torchvision.md: all models that have no row yet
    python scripts/model_table.py torchvision resnet18 vit_b_16  # these again, the others as they were
    python scripts/model_table.py timm                           # docs/timm.md: one model or more of each family

One step of each in float64 and training mode, chance switched off: converted with `torchfromscratch.convert`, and
torchvision's unconverted inside `torchfromscratch.from_scratch()` as well. A row is written as soon as it is known, so
that the command can be stopped and continued. torchvision's two largest models need 12 GB of memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchfromscratch.entry_point import loading, run

with loading():
    import torch
    from torchvision import models
    from torchvision.models.optical_flow import raft
    from torchvision.models.optical_flow._utils import make_coords_grid

    from torchfromscratch.benchmark import measured_with
    from torchfromscratch.command_line import Parser, require_known, threads
    from torchfromscratch.comparison import (
        Comparison,
        by_hand,
        compare,
        disable_dropout,
        fill_zero_weights,
        take_step,
    )
    from torchfromscratch.convert import conversion_report
    from torchfromscratch.extras import from_extra

DOCS = Path(__file__).resolve().parent.parent / "docs"
TOLERANCE = 1e-6

METHOD = f"""\
One step in float64 and training mode on random input of the size given, dropout and stochastic depth switched off,
what begins as zeros and is no bias filled. Of the layers, which are modules of torch.nn's classes, so many became ours;
the others override torch.nn's forward, and what they and the models' own forwards call runs by hand. Errors are the
largest difference from torch.nn over the largest element, of the outputs, of the worst parameter's gradient and of the
worst buffer; a model holds if they are at most {TOLERANCE:.0e} and `audit()` sees no built-in layer kernel, forward or
backward. What is below 1e-6 of the largest gradient (or buffer) of the model is measured on that bound: it is zero but
for rounding.
"""


@dataclass(frozen=True)
class Library:
    """A library's models and how they are built and called, in float64 and training mode."""

    name: str
    packages: Sequence[str]  # whose versions errors belong to
    introduction: str
    chapters: dict[str, Sequence[str]]
    ways: Sequence[str]  # of running by hand
    build: Callable[[str], torch.nn.Module]
    example: Callable[[str], list[Any]]
    size: Callable[[str], tuple[int, ...]]

    @property
    def models(self) -> list[str]:
        return [name for names in self.chapters.values() for name in names]

    @property
    def document(self) -> Path:
        return DOCS / f"{self.name}.md"

    @property
    def measured(self) -> str:
        """What errors belong to, as a line of the document."""
        with from_extra("timm" if "timm" in self.packages else "train"):
            return measured_with(*self.packages)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("library", choices=LIBRARIES, metavar="LIBRARY", help="torchvision or timm")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these; default: all that have no row yet")
    parser.add_argument(
        "--threads",
        type=threads,
        default=torch.get_num_threads(),
        metavar="N",
        help="CPU threads (default: torch's choice)",
    )
    args = parser.parse_intermixed_args()  # models may stand behind --threads
    torch.set_num_threads(args.threads)
    library = LIBRARIES[args.library]()
    require_known(f"model of {library.name}", args.models, library.models)
    measured, rows = library.measured, known_rows(library)
    chosen = args.models or [name for name in library.models if name not in rows]
    for number, name in enumerate(chosen, 1):
        start = time.perf_counter()
        try:
            rows[name] = row(library, name)
        except Exception as error:
            print(f"{number}/{len(chosen)} {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{number}/{len(chosen)} {rows[name]} {time.perf_counter() - start:.0f} s", flush=True)
        library.document.write_text(document(library, measured, rows), encoding="utf-8")
    return 0 if all(name in rows and holds(rows[name]) for name in library.models) else 1


def known_rows(library: Library) -> dict[str, str]:
    """The rows of the library's document by their models' names, unless they were measured with other versions."""
    measured, rows = read(library)
    return rows if measured == library.measured else {}


def read(library: Library) -> tuple[str, dict[str, str]]:
    """What the library's document was measured with, and its rows by their models' names."""
    text = library.document.read_text(encoding="utf-8") if library.document.exists() else ""
    lines = text.splitlines()
    measured = next((line for line in lines if line.startswith("Measured with ")), "")
    rows = {line.split()[1]: line for line in lines if line.startswith("| ")}
    return measured, {name: row for name, row in rows.items() if name in library.models}


def row(library: Library, name: str) -> str:
    """What a step of the model shows, in each way, as a row of the table."""
    torch.manual_seed(0)
    model = library.build(name)
    disable_dropout(model)
    fill_zero_weights(model)
    inputs = library.example(name)
    expected = take_step(model, inputs)
    comparisons = []
    for way in library.ways:
        with by_hand(model, way):
            comparisons.append(compare(model, inputs, expected))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    cells = [name, f"{millions:.1f} M", "×".join(map(str, library.size(name))), layers_by_hand(model)]
    for comparison in comparisons:
        kernels = ", ".join(f"{count} {kernel}" for kernel, count in comparison.kernels.kernels.most_common())
        cells += [*(f"{error:.0e}" for error in errors(comparison)), kernels or "none"]
    return f"| {' | '.join([*cells, 'yes' if all(map(equal_and_by_hand, comparisons)) else 'no'])} |"


def layers_by_hand(model: torch.nn.Module) -> str:
    with by_hand(model):
        report = conversion_report(model)
    return f"{len(report.by_hand)} of {len(report.by_hand) + len(report.left)}"


def errors(comparison: Comparison) -> tuple[float, float, float]:
    return comparison.output_error, comparison.gradient_error, comparison.buffer_error


def equal_and_by_hand(comparison: Comparison) -> bool:
    return max(errors(comparison)) <= TOLERANCE and not comparison.kernels


def holds(row: str) -> bool:
    return row.endswith("| yes |")


def document(library: Library, measured: str, rows: dict[str, str]) -> str:
    """The rows as a document in Markdown."""
    compared = [column for way in library.ways for column in (f"{way}: output", "gradient", "buffers", "built in")]
    columns = ["model", "parameters", "input", "layers by hand", *compared, "holds"]
    alignment = ["---" if column in WORDS else "--:" for column in columns]
    head = f"| {' | '.join(columns)} |\n| {' | '.join(alignment)} |\n"
    text = f"""\
# {library.name}'s models, by hand

`python scripts/model_table.py {library.name}` writes this table.
{measured}

{METHOD}
{library.introduction}"""
    for chapter, names in library.chapters.items():
        known = [rows[name] for name in names if name in rows]
        held = sum(map(holds, known))
        text += f"\n## {chapter}: {held} of {len(names)} hold\n\n{head}" + "".join(f"{row}\n" for row in known)
    return text


WORDS = {"model", "built in", "holds"}  # columns that are no numbers


# torchvision: all of it -----------------------------------------------------------------------------------------------

TORCHVISION = """\
What is no layer of torch.nn stays as it is, and audit() lets it pass: torchvision's own operators (`nms`, `roi_align`).
The quantizable models are those that `get_model` gives; with `quantize=True` they have integers for weights and no
gradients, and `convert` leaves their layers to torch and says so. torchvision itself computes in float32 RAFT's grid of
coordinates, which the command makes in float64, and one loss of the R-CNNs.
"""


def torchvision_models() -> Library:
    chapters = {
        "Classification": models,
        "Segmentation": models.segmentation,
        "Detection": models.detection,
        "Video": models.video,
        "Optical flow": models.optical_flow,
        "Quantization, before the weights become integers": models.quantization,
    }
    classifiers, detectors = models.list_models(models), models.list_models(models.detection)
    # What a model is called with; most take small pictures, to keep the command short.
    sizes = {
        "inception_v3": (2, 3, 299, 299),
        "maxvit_t": (2, 3, 224, 224),
        **dict.fromkeys(models.list_models(models.video), (2, 3, 4, 64, 64)),
        **dict.fromkeys(["mvit_v1_b", "mvit_v2_s", "s3d"], (1, 3, 16, 224, 224)),
        "quantized_inception_v3": (2, 3, 299, 299),
        "raft_large": (1, 3, 128, 128),
        "raft_small": (1, 3, 128, 128),
        "vit_h_14": (2, 3, 28, 28),
    }

    def size(name: str) -> tuple[int, ...]:
        return sizes.get(name, (2, 3, 64, 64))

    options: dict[str, dict[str, Any]] = {
        **{name: {"init_weights": False} for name in models.list_models(include=["*googlenet", "*inception_v3"])},
        **{name: {"weights_backbone": None} for name in models.list_models(models.segmentation)},
        **{name: {"weights_backbone": None, "min_size": 64} for name in detectors},
        **{name: {"weights_backbone": None} for name in detectors if name.startswith("ssd")},
        **{name: {"image_size": size(name)[-1]} for name in classifiers if name.startswith("vit_")},
    }

    def build(name: str) -> torch.nn.Module:
        raft.make_coords_grid = lambda *sizes, **options: make_coords_grid(*sizes, **options).double()  # is float32
        return models.get_model(name, weights=None, **options.get(name, {})).double().train()

    def example(name: str) -> list[Any]:
        pictures = torch.rand(size(name), dtype=torch.float64)
        if name.startswith("raft"):
            return [pictures, pictures.roll(2, -1)]
        if name in detectors:
            target = {
                "boxes": torch.tensor([[8.0, 8, 40, 40], [20, 10, 60, 50]], dtype=torch.float64),
                "labels": torch.tensor([1, 1]),
                "masks": (torch.rand(2, 64, 64) < 0.5).byte(),
                "keypoints": torch.cat([torch.rand(2, 17, 2) * 60, torch.ones(2, 17, 1)], -1),
            }
            return [list(pictures), [target, target]]
        return [pictures]

    return Library(
        "torchvision",
        ("torch", "torchvision"),
        TORCHVISION,
        {chapter: models.list_models(module) for chapter, module in chapters.items()},
        ("convert", "from_scratch"),
        build,
        example,
        size,
    )


# timm: small models of distinct families -----------------------------------------------------------------------------

TIMM = """\
The models are small ones of distinct families, one or more of each of timm's files but two: of `deepseek_vit` and
`mobilenetv5` the smallest have 412 and 294 million parameters. Their weights are random, and nothing is downloaded.
"""
# fmt: off
ANY_SIZE = [
    "bat_resnext26ts", "caformer_s18", "convformer_s18", "convmixer_768_32", "convnext_atto", "convnextv2_atto",
    "cpubone_nano", "crossvit_9_240", "crossvit_9_dagger_240", "cs3darknet_focus_s", "csatv2", "cspdarknet53",
    "cspnext_tiny", "cspresnet50", "darknet17", "davit_tiny", "densenet121", "dla46_c", "dm_nfnet_f0", "dpn48b",
    "eca_halonext26ts", "eca_nfnet_l0", "ecaresnet26t", "ecaresnet50t", "edgenext_xx_small", "efficientformer_l1",
    "efficientnet_b0", "efficientnet_b0_gn", "efficientnetv2_rw_t", "efficientvim_m1", "efficientvit_b0",
    "ese_vovnet19b_slim_dw", "fasternet_t0", "fastvit_t8", "fbnetc_100", "fbnetv3_b", "focalnet_tiny_srf",
    "ghostnet_050", "ghostnetv2_100", "ghostnetv3_050", "halonet26t", "haloregnetz_b", "hardcorenas_a", "hgnet_tiny",
    "hgnetv2_b0", "hieradet_small", "hrnet_w18_small", "iformer_t", "inception_next_atto", "inception_resnet_v2",
    "inception_v3", "inception_v4", "lcnet_035", "lcnetv2_small", "legacy_seresnet18", "legacy_xception",
    "lowformer_b0", "mambaout_femto", "mixnet_s", "mnasnet_small", "mobilenet_edgetpu_100", "mobilenetv1_100",
    "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "nasnetalarge", "nextvit_small",
    "nf_regnet_b0", "nf_resnet26", "nfnet_f0", "pnasnet5large", "poolformer_s12", "poolformerv2_s12", "pvt_v2_b0",
    "rdnet_tiny", "regnetv_040", "regnetx_002", "regnety_002", "repghostnet_050", "res2net50_14w_8s", "resnest14d",
    "resnet10t", "resnet26t", "resnetaa50", "resnetrs50", "resnetv2_18", "resnetv2_50x1_bit", "rexnet_100",
    "rexnetr_100", "sam2_hiera_tiny", "sehalonet33ts", "selecsls42", "semnasnet_050", "seresnext26d_32x4d", "shvit_s1",
    "skresnet18", "spnasnet_100", "starnet_s050", "tf_efficientnet_b0", "tiny_vit_5m_224", "tinynet_e", "tresnet_m",
    "vgg11", "vgg11_bn", "wide_resnet50_2", "xception41",
]
RESIZED = [
    "beit_base_patch16_224", "botnet26t_256", "cait_xxs24_224", "coat_tiny", "coatnet_nano_rw_224", "convit_tiny",
    "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224", "eca_botnext26ts_256", "efficientformerv2_s0",
    "efficientvit_m0", "eva02_tiny_patch14_224", "gcresnext26ts", "gcvit_xxtiny", "gemma4_vit_167m", "gernet_s",
    "gmixer_12_224", "gmlp_ti16_224", "hiera_tiny_224", "lambda_resnet26t", "levit_128s", "levit_conv_128s",
    "maxvit_tiny_tf_224", "maxxvit_rmlp_nano_rw_256", "mixer_s32_224", "mobileone_s0", "mobilevit_xxs",
    "mobilevitv2_050", "mvitv2_tiny", "naflexvit_base_patch16_gap", "nest_tiny", "pit_ti_224", "qwen3_vit_88m",
    "regnetz_b16", "repvgg_a0", "repvit_m0_9", "resmlp_12_224", "resnext26ts", "samvit_base_patch16_224",
    "sebotnet33ts_256", "sequencer2d_s", "seresnet33ts", "seresnext26ts", "swiftformer_xs",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "tnt_s_patch16_224",
    "twins_pcpvt_small", "twins_svt_small", "visformer_tiny", "vit_relpos_small_patch16_224",
    "vit_srelpos_small_patch16_224", "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vitamin_small_224",
    "volo_d1_224", "xcit_nano_12_p16_224", "xcit_nano_12_p8_224",
]
# fmt: on
LARGER: dict[str, int] = {
    **dict.fromkeys(["inception_resnet_v2", "inception_v3", "inception_v4"], 128),
    **dict.fromkeys(["efficientformer_l1", "haloregnetz_b"], 224),
    **dict.fromkeys(["crossvit_9_240", "crossvit_9_dagger_240"], 240),
    **dict.fromkeys(["bat_resnext26ts", "eca_halonext26ts", "halonet26t", "sehalonet33ts"], 256),
}


def timm_models() -> Library:
    def size(name: str) -> tuple[int, ...]:
        return 2, 3, *[LARGER.get(name, 64)] * 2

    def build(name: str) -> torch.nn.Module:
        import timm  # takes long

        options = {"img_size": size(name)[-1]} if name in RESIZED else {}
        return timm.create_model(name, pretrained=False, **options).double().train()

    def example(name: str) -> list[Any]:
        return [torch.rand(size(name), dtype=torch.float64)]

    chapters = {"Models": sorted([*ANY_SIZE, *RESIZED])}
    return Library("timm", ("torch", "torchvision", "timm"), TIMM, chapters, ("convert",), build, example, size)


LIBRARIES: dict[str, Callable[[], Library]] = {"torchvision": torchvision_models, "timm": timm_models}


if __name__ == "__main__":
    run(main)
