"""What the sheet of a layer has besides its prose: numbers of parameters, derivation, code, pages, conformance."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torchfromscratch import nn
from torchfromscratch.notes.links import LINK, lines_of

SITE = Path(__file__).parents[1]
ROOT = SITE.parents[1]
PACKAGE = ROOT / "torchfromscratch"


class Sheet(NamedTuple):
    """A sheet's layers and functions, and where they come from."""

    layers: str  # of torch.nn
    functions: str  # of torch.nn.functional
    derivation: str | None = None  # the section of docs/derivations.en.md
    file: str | None = None  # of autograd/, whose first lines are the formulas where there is no derivation
    names: str = ""  # of that file, to be shown
    explained: str = ""  # the layers of `torchfromscratch explain`
    examples: tuple[str, ...] = ()  # whose parameters are counted


SHEETS: dict[str, Sheet] = {
    "linear": Sheet(
        "Linear LazyLinear Bilinear",
        "linear bilinear",
        "Linear",
        explained="linear",
        examples=("Linear(784, 128)", "Linear(784, 128, bias=False)", "Bilinear(20, 30, 40)"),
    ),
    "convolution": Sheet(
        "Conv1d Conv2d Conv3d LazyConv1d LazyConv2d LazyConv3d",
        "conv1d conv2d conv3d conv_tbc",
        "Convolution",
        explained="conv2d",
        examples=("Conv2d(3, 16, 3)", "Conv2d(64, 64, 3, groups=64)", "Conv2d(256, 64, 1)", "Conv1d(8, 16, 5)"),
    ),
    "transposed_convolution": Sheet(
        "ConvTranspose1d ConvTranspose2d ConvTranspose3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d",
        "conv_transpose1d conv_transpose2d conv_transpose3d",
        "Transposed convolution",
        explained="conv_transpose2d",
        examples=("ConvTranspose2d(16, 3, 3, stride=2)",),
    ),
    "max_pooling": Sheet(
        "MaxPool1d MaxPool2d MaxPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d FractionalMaxPool2d "
        "FractionalMaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d",
        "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "fractional_max_pool2d fractional_max_pool3d max_unpool1d max_unpool2d max_unpool3d",
        "Max pooling",
        explained="max_pool2d",
        examples=("MaxPool2d(2)",),
    ),
    "average_pooling": Sheet(
        "AvgPool1d AvgPool2d AvgPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d LPPool1d LPPool2d "
        "LPPool3d",
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d lp_pool1d "
        "lp_pool2d lp_pool3d",
        "Average pooling",
        explained="avg_pool2d",
        examples=("AvgPool2d(2)", "AdaptiveAvgPool2d(1)"),
    ),
    "activations": Sheet(
        "ReLU LeakyReLU PReLU RReLU ReLU6 ELU CELU SELU GELU SiLU Mish Softplus Sigmoid LogSigmoid Hardsigmoid "
        "Hardswish Tanh Tanhshrink Hardtanh Hardshrink Softshrink Softsign Threshold GLU",
        "relu leaky_relu prelu rrelu relu6 elu celu selu gelu silu mish softplus sigmoid logsigmoid hardsigmoid "
        "hardswish tanh tanhshrink hardtanh hardshrink softshrink softsign threshold glu",
        "ReLU, LeakyReLU and other activations",
        explained="relu",
        examples=("ReLU()", "PReLU()", "PReLU(64)"),
    ),
    "softmax": Sheet(
        "Softmax Softmax2d LogSoftmax Softmin",
        "softmax log_softmax softmin gumbel_softmax",
        "Softmax",
        explained="softmax",
        examples=("Softmax(dim=1)",),
    ),
    "cross_entropy": Sheet(
        "CrossEntropyLoss NLLLoss NLLLoss2d LinearCrossEntropyLoss AdaptiveLogSoftmaxWithLoss",
        "cross_entropy nll_loss linear_cross_entropy",
        "Cross-entropy",
        explained="cross_entropy",
        examples=("CrossEntropyLoss()", "AdaptiveLogSoftmaxWithLoss(64, 1000, [100, 500])"),
    ),
    "losses": Sheet(
        "MSELoss L1Loss SmoothL1Loss HuberLoss BCELoss BCEWithLogitsLoss KLDivLoss PoissonNLLLoss GaussianNLLLoss "
        "SoftMarginLoss MultiLabelSoftMarginLoss",
        "mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits kl_div "
        "poisson_nll_loss gaussian_nll_loss soft_margin_loss multilabel_soft_margin_loss",
        file="loss.py",
        names="squared_error absolute smooth_error binary_cross_entropy sigmoid_cross_entropy divergence",
        examples=("MSELoss()",),
    ),
    "margin_losses": Sheet(
        "MarginRankingLoss HingeEmbeddingLoss CosineEmbeddingLoss TripletMarginLoss TripletMarginWithDistanceLoss "
        "MultiMarginLoss MultiLabelMarginLoss",
        "margin_ranking_loss hinge_embedding_loss cosine_embedding_loss triplet_margin_loss "
        "triplet_margin_with_distance_loss multi_margin_loss multilabel_margin_loss",
        file="margin_loss.py",
        names="hinge smaller _margins _margins_transpose",
        examples=("TripletMarginLoss()",),
    ),
    "ctc": Sheet("CTCLoss", "ctc_loss", "CTC", examples=("CTCLoss()",)),
    "batch_norm": Sheet(
        "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d "
        "InstanceNorm1d InstanceNorm2d InstanceNorm3d LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d",
        "batch_norm instance_norm",
        "Batch, layer, group and instance norm",
        explained="batch_norm",
        examples=("BatchNorm2d(64)", "InstanceNorm2d(64)"),
    ),
    "layer_norm": Sheet(
        "LayerNorm GroupNorm RMSNorm",
        "layer_norm group_norm rms_norm",
        "Batch, layer, group and instance norm",
        explained="layer_norm",
        examples=("LayerNorm(512)", "GroupNorm(8, 64)", "RMSNorm(512)"),
    ),
    "local_response_norm": Sheet(
        "LocalResponseNorm CrossMapLRN2d",
        "local_response_norm",
        "Local response norm",
        examples=("LocalResponseNorm(5)",),
    ),
    "dropout": Sheet(
        "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout",
        "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout",
        "Dropout",
        examples=("Dropout(0.5)",),
    ),
    "embedding": Sheet(
        "Embedding EmbeddingBag",
        "embedding embedding_bag one_hot",
        "Embedding",
        explained="embedding",
        examples=("Embedding(10000, 300)", "EmbeddingBag(10000, 300)"),
    ),
    "recurrent": Sheet(
        "RNN RNNCell GRU GRUCell",
        "",
        "Recurrent layers",
        examples=("RNN(28, 64)", "GRU(28, 64)"),
    ),
    "lstm": Sheet(
        "LSTM LSTMCell",
        "",
        "Recurrent layers",
        explained="lstm",
        examples=("LSTM(28, 64)", "LSTM(28, 64, num_layers=2, bidirectional=True)"),
    ),
    "attention": Sheet(
        "MultiheadAttention Transformer TransformerEncoder TransformerEncoderLayer TransformerDecoder "
        "TransformerDecoderLayer",
        "scaled_dot_product_attention multi_head_attention_forward",
        "Attention",
        explained="attention",
        examples=("MultiheadAttention(512, 8)", "TransformerEncoderLayer(512, 8)"),
    ),
    "flatten": Sheet("Flatten", "", "Flatten", examples=("Flatten()",)),
    "padding": Sheet(
        "ZeroPad1d ZeroPad2d ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d ReflectionPad2d "
        "ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d CircularPad2d CircularPad3d",
        "pad",
        "Padding",
        examples=("ReflectionPad2d(1)",),
    ),
    "resizing": Sheet(
        "Upsample UpsamplingNearest2d UpsamplingBilinear2d",
        "interpolate upsample upsample_nearest upsample_bilinear",
        file="resizing.py",
        names="resample",
        examples=("Upsample(scale_factor=2)",),
    ),
    "sampling": Sheet("", "grid_sample affine_grid", "Sampling at any place"),
    "shuffle": Sheet(
        "PixelShuffle PixelUnshuffle ChannelShuffle",
        "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle",
        file="shuffle.py",
        names="pixel_shuffle channel_shuffle",
        examples=("PixelShuffle(2)",),
    ),
    "unfold": Sheet(
        "Unfold Fold",
        "unfold fold",
        file="unfold.py",
        names="_unfold _fold",
        examples=("Unfold(3)",),
    ),
    "distance": Sheet(
        "CosineSimilarity PairwiseDistance",
        "cosine_similarity pairwise_distance normalize pdist",
        file="distance.py",
        names="Norm Dot",
        examples=("CosineSimilarity()",),
    ),
}

# what torch calls a function that works in place, or returns indices besides
VARIANT = re.compile(r"_$|_with_indices$")

# what the build writes, in both languages
WORDS = {
    "en": {
        "layers": "Layers",
        "functions": "Functions",
        "derivation": "Derivation",
        "formulas": "The formulas, as they stand at the top of",
        "code": "The code",
        "lines": "The lines that compute it, as they stand in the package.",
        "number": "Number by number",
        "explain": "One small forward and backward pass of `{}`. Point at a cell to see where it came from, or step "
        "through it. [Open it by itself]({}), with its derivation and code.",
        "conformance": "Conformance",
        "samples": "PyTorch's own samples, passed / total, as [the table of conformance](../conformance.md) has them.",
        "none": "PyTorch has no samples of these.",
        "layer": "layer",
        "parameter": "parameter",
        "shape": "shape",
        "count": "numbers",
        "nothing": "none to learn",
        "all": "all",
        "buffer": "{} (kept, not learnt)",
        "sheet": "sheet",
        "exercise": "exercise",
        "solve": "check it with",
    },
    "vi": {
        "layers": "Các lớp",
        "functions": "Các hàm",
        "derivation": "Suy diễn",
        "formulas": "Các công thức, như viết ở đầu tệp",
        "code": "Mã nguồn",
        "lines": "Những dòng tính ra nó, đúng như trong gói.",
        "number": "Từng con số",
        "explain": "Một lượt xuôi và một lượt ngược nhỏ của `{}`. Trỏ vào một ô để xem nó từ đâu ra, hoặc đi từng "
        "bước. [Mở thành trang riêng]({}), kèm suy diễn và mã nguồn (tiếng Anh).",
        "conformance": "Đối chiếu với PyTorch",
        "samples": "Bộ mẫu thử của chính PyTorch, đạt / tổng số, theo [bảng đối chiếu](../conformance.md).",
        "none": "PyTorch không có mẫu thử cho các lớp này.",
        "layer": "lớp",
        "parameter": "tham số",
        "shape": "kích thước",
        "count": "số lượng",
        "nothing": "không có gì để học",
        "all": "tổng cộng",
        "buffer": "{} (được lưu, không học)",
        "sheet": "trang",
        "exercise": "bài tập",
        "solve": "kiểm tra bằng",
    },
}


def rest(name: str, language: str) -> str:
    """What follows the prose of a sheet."""
    sheet, words = SHEETS[name], WORDS[language]
    parts = [f"## {words['derivation']}", *_derivation(sheet, language)]
    parts += [f"## {words['code']}", words["lines"]]
    parts += [f"<!-- code {path} {defined} -->" for path, defined in _code(sheet)]
    if sheet.explained:
        parts += [f"## {words['number']}", *(_embedded(layer, words) for layer in sheet.explained.split())]
    parts += [f"## {words['conformance']}", *_conformance(sheet, words)]
    return "\n\n" + "\n\n".join(parts) + "\n"


def _derivation(sheet: Sheet, language: str) -> Iterator[str]:
    if sheet.derivation is not None:
        yield f'<!-- include docs/derivations.{language}.md "{heading(sheet.derivation, language)}" -->'
    else:
        path = f"torchfromscratch/autograd/{sheet.file}"
        yield f"{WORDS[language]['formulas']} [{path}](../../../../{path}):"
        yield f"<!-- docstring {path} -->"


def heading(english: str, language: str) -> str:
    """The heading of a section of the derivations: both files have the same sections in the same order."""
    headings = {lang: re.findall(r"^## (.*)$", _derivations(lang), re.MULTILINE) for lang in ("en", language)}
    return headings[language][headings["en"].index(english)]


def _derivations(language: str) -> str:
    return (ROOT / "docs" / f"derivations.{language}.md").read_text(encoding="utf-8")


def _code(sheet: Sheet) -> list[tuple[str, str]]:
    """File and name of each piece of code: what the derivation links to, or what the table names."""
    if sheet.derivation is None:
        return [(f"torchfromscratch/autograd/{sheet.file}", name) for name in sheet.names.split()]
    found = re.search(rf"^## {re.escape(sheet.derivation)}\n(.*?)(?=^## |\Z)", _derivations("en"), re.M | re.S)
    return [(link["path"], link["name"]) for link in LINK.finditer(found[1])]


def code(which: str, root: str) -> str:
    """The lines of a file that define a name, shown from the source."""
    path, name = which.split()
    first, last = lines_of((ROOT / path).read_text(encoding="utf-8"), name, path)
    return (
        f"````{{literalinclude}} {root}{path}\n:language: python\n:lines: {first}-{last}\n:lineno-match:\n"
        f":caption: {name}, {path}\n````"
    )


def docstring(path: str, root: str) -> str:
    """The first lines of a file, with its formulas."""
    lines = len((ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or "").splitlines())
    # the quotation marks stand on the first line and on a last one of their own
    return f"````{{literalinclude}} {root}{path}\n:language: text\n:lines: 1-{lines}\n````"


def _embedded(layer: str, words: dict[str, str]) -> str:
    page = f"../explain/{layer}.html"
    told = words["explain"].format(layer, f"generated:explain/{layer}")
    return f'{told}\n\n<iframe class="explained" src="{page}" title="{layer}" loading="lazy"></iframe>'


def _conformance(sheet: Sheet, words: dict[str, str]) -> list[str]:
    """The rows of the layers and of the functions, below the heads of their tables."""
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    tables = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, ruler, *rows = table.splitlines()
        chosen = [row for row in rows if _subject(row) in {*sheet.layers.split(), *sheet.functions.split()}]
        if chosen and head.count("|") == 7:
            tables.append("\n".join([head, ruler, *chosen]))
    return [words["samples"], *tables] if tables else [words["none"]]


def _subject(row: str) -> str:
    """conv2d for `| nn.functional.conv2d | …`, pad for `| nn.functional.pad circular | …`."""
    return row.split()[1].rpartition(".")[2]


def parameters(name: str, language: str) -> str:
    """A table of what the sheet's examples have to learn, counted."""
    words = WORDS[language]
    lines = [f"| {words['layer']} | {words['parameter']} | {words['shape']} | {words['count']} |"]
    lines += ["| --- | --- | --- | --: |"]
    for example in SHEETS[name].examples:
        lines += _rows(example, words)
    return "\n".join(lines) + "\n"


def _rows(example: str, words: dict[str, str]) -> Iterator[str]:
    layer = eval(f"nn.{example}", {"nn": nn})
    learnt = list(layer.named_parameters())
    first = f"`{example}`"
    for name, parameter in learnt:
        yield f"| {first} | {name} | {_shape(parameter.shape)} | {parameter.numel():,} |"
        first = ""
    for name, buffer in layer.named_buffers():
        yield f"| {first} | {words['buffer'].format(name)} | {_shape(buffer.shape)} | {buffer.numel():,} |"
        first = ""
    total = sum(parameter.numel() for _, parameter in learnt)
    if len(learnt) != 1:
        yield f"| {first} | {words['all'] if learnt else words['nothing']} | | **{total:,}** |"


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "1"


def overview(language: str) -> str:
    """A table of all sheets, with the layers and functions of each."""
    words = WORDS[language]
    lines = [f"| {words['sheet']} | {words['layers']} | {words['functions']} |", "| --- | --- | --- |"]
    for name, sheet in SHEETS.items():
        lines.append(f"| [{title(name, language)}]({name}.md) | {_names(sheet.layers)} | {_names(sheet.functions)} |")
    return "\n".join(lines) + "\n"


def title(name: str, language: str) -> str:
    """How a sheet is called."""
    first, *_ = (SITE / language / "layers" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    return first.removeprefix("# ")


def _names(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split())


def exercises(language: str) -> str:
    """A table of the exercises and the command that checks each."""
    words = WORDS[language]
    lines = [f"| {words['exercise']} | {words['solve']} |", "| --- | --- |"]
    for path in sorted((ROOT / "exercises").glob("*.py")):
        command = re.search(r"torchfromscratch (check .*)", path.read_text(encoding="utf-8"))
        assert command is not None, f"{path.name} does not say how it is checked"
        lines.append(f"| [{path.stem}](../exercises/{path.name}) | `torchfromscratch {command[1].rstrip('`.')}` |")
    return "\n".join(lines) + "\n"


def explanations() -> Iterator[tuple[str, str]]:
    """Each layer that can be explained, and its page; inside a sheet, which has both, without derivation and code."""
    from torchfromscratch.explaining.command import register
    from torchfromscratch.explaining.page import as_page

    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    for layer in sorted({layer for sheet in SHEETS.values() for layer in sheet.explained.split()}):
        args = parser.parse_args(["explain", layer])
        yield layer, as_page(args.build(args)).replace("</head>", f"{EMBEDDED}</head>", 1)


# Inside a sheet, a page is as light or as dark as the sheet says, whatever the system prefers.
EMBEDDED = """<script>
if (self !== top) document.documentElement.classList.add("embedded");
const dark = [...document.styleSheets[0].cssRules].find(rule => rule.media?.mediaText.includes("dark"));
addEventListener("message", ({ data }) => { dark.media.mediaText = data === "dark" ? "all" : "not all"; });
</script>
<style>.embedded :is(#derivation, #code, nav a, h2 a, h1) { display: none }</style>
"""
