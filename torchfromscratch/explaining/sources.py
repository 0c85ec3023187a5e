"""Where the numbers of an explanation come from: the derivation of the layer, and the lines that compute each result.

A page may be opened anywhere, on a machine without this package or a network. So it holds what it links to: the lines
of code, read from the package as it is installed, and the derivation, from docs/ or from the copy that is installed.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torchfromscratch.explaining.mathml import mathml
from torchfromscratch.notes.links import LINK, lines_of

PACKAGE = Path(__file__).parents[1]


def _derivations() -> Path | None:
    """docs/derivations.en.md of a clone, or the copy that a wheel installs beside the package; None without both."""
    beside = PACKAGE.parent / "docs" / "derivations.en.md"
    if beside.exists():
        return beside
    try:
        installed = metadata.files("torchfromscratch") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in installed if file.name == beside.name), None)


DERIVATIONS = _derivations()
PICTURE = re.compile(r"^!\[[^\]]*\]\([^)]*\)$", re.MULTILINE)  # a file of its own, which the page would have to hold

_NORM = "Batch, layer, group and instance norm"


@dataclass(frozen=True)
class Code:
    """The lines of the package that define a name."""

    name: str
    path: str
    first: int
    text: str

    @property
    def last(self) -> int:
        return self.first + self.text.count("\n")


def code_of(layer: str) -> dict[str, Code]:
    """The code of each of the layer's results, by the result's name; of a layer without an explanation, none."""
    if layer not in SOURCES:
        return {}
    _, file, results = SOURCES[layer]
    return {result: _code(file, name) for name, names in results.items() for result in names.split()}


def derivation_of(layer: str) -> str | None:
    """The layer's section of the derivations in HTML, with links to `code_of` on the page; None without one."""
    if DERIVATIONS is None or layer not in SOURCES:
        return None
    heading = SOURCES[layer][0]
    text = DERIVATIONS.read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise LookupError(f"{DERIVATIONS.name} has no section {heading!r}")
    on_page = {code.name.partition(".")[0]: anchor(code) for code in code_of(layer).values()}
    return f"<h2>{html.escape(heading)}</h2>\n{as_html(section[1], on_page)}"


def anchor(code: Code) -> str:
    """What a page calls the place of the code."""
    return f"code-{code.name}"


def as_html(markdown: str, on_page: dict[str, str]) -> str:
    """Paragraphs and formulas, without pictures; of links to code those whose names are on the page, by anchors."""
    parts = []
    for part in re.split(r"(^```math\n.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```math"):
            parts.append(f'<div class="math">{mathml(part[8:-3], display=True)}</div>')
        else:
            paragraphs = (paragraph.strip() for paragraph in PICTURE.sub("", part).split("\n\n"))
            parts += [f"<p>{_inline(paragraph, on_page)}</p>" for paragraph in paragraphs if paragraph]
    return "\n".join(parts)


def _inline(paragraph: str, on_page: dict[str, str]) -> str:
    def link(found: re.Match) -> str:
        name = f"<code>{html.escape(found['name'])}</code>"
        place = on_page.get(found["name"].partition(".")[0])
        return name if place is None else f'<a href="#{place}">{name}</a>'

    kept: list[str] = []

    def keep(text: str) -> str:
        kept.append(text)
        return f"\0{len(kept) - 1}\0"

    text = re.sub(r"\$`(.*?)`\$", lambda found: keep(mathml(found[1])), paragraph, flags=re.DOTALL)
    text = LINK.sub(lambda found: keep(link(found)), text)
    text = re.sub(r"`([^`]*)`", lambda found: keep(f"<code>{html.escape(found[1])}</code>"), text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text, quote=False), flags=re.DOTALL)
    text = re.sub(r"\*(.+?)\*", r"<em>\1</em>", text, flags=re.DOTALL)
    return re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], text)


def _code(file: str, name: str) -> Code:
    lines = (PACKAGE / file).read_text(encoding="utf-8").splitlines()
    first, last = lines_of("\n".join(lines), name, file)
    return Code(name, f"{PACKAGE.name}/{file}", first, "\n".join(lines[first - 1 : last]))


# layer: its section of the derivations, its file, and the results that each name in the file computes
SOURCES: dict[str, tuple[str, str, dict[str, str]]] = {
    "conv2d": (
        "Convolution",
        "autograd/convolution.py",
        {"Correlation": "y", "WeightGradient": "dL/dw", "sum_per_channel": "dL/db", "FullConvolution": "dL/dx"},
    ),
    "conv_transpose2d": (
        "Transposed convolution",
        "autograd/convolution.py",
        {"FullConvolution": "y", "WeightGradient": "dL/dw", "sum_per_channel": "dL/db", "Correlation": "dL/dx"},
    ),
    "max_pool2d": ("Max pooling", "autograd/pooling.py", {"MaxPool": "y", "fetch_transpose": "dL/dx"}),
    "avg_pool2d": ("Average pooling", "autograd/pooling.py", {"average": "y dL/dx"}),
    "linear": ("Linear", "autograd/linear.py", {"Linear.forward": "y", "Linear.backward": "dL/dw dL/db dL/dx"}),
    "relu": (
        "ReLU, LeakyReLU and other activations",
        "autograd/elementwise.py",
        {"relu": "y", "gate": "dL/dx"},
    ),
    "softmax": ("Softmax", "autograd/softmax.py", {"Softmax": "y", "through_softmax": "m dL/dz"}),
    "cross_entropy": (
        "Cross-entropy",
        "autograd/loss.py",
        {"SoftmaxCrossEntropy.forward": "p L", "_softmax_minus_target": "dL/dz"},
    ),
    "batch_norm": (
        _NORM,
        "autograd/normalization.py",
        {"Normalize": "μ σ² x̂ y", "NormalizeBackward": "dL/dβ dL/dγ dL/dx"},
    ),
    "layer_norm": (
        _NORM,
        "autograd/normalization.py",
        {"Normalize": "μ σ² x̂ y", "NormalizeBackward": "dL/dβ dL/dγ h A B dL/dx"},
    ),
    "embedding": ("Embedding", "autograd/embedding.py", {"_gather": "y", "_scatter_add": "dL/dE"}),
    "attention": (
        "Attention",
        "autograd/attention.py",
        {"Attention.forward": "q S A y", "_gradients": "dL/dV dL/dA m dL/dS dL/dK dL/dq dL/dQ"},
    ),
    "lstm": (
        "Recurrent layers",
        "autograd/recurrent.py",
        {
            "Recurrence.forward": "a",
            "LSTM.activate": "i f g o",
            "LSTM.step": "c' t h'",
            "LSTM.pull": "δ dL/da dL/dc",
            "Recurrence.backward": "dL/dw dL/db dL/dz",
        },
    ),
}
