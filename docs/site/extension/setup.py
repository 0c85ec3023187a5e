"""The documents of docs/ as they are, a sheet for each layer, pages of source: when Sphinx is to ask for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from extension import markdown, reference, sheets, sources


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    app.connect("doctree-resolved", sources.resolve)
    app.connect("html-collect-pages", sources.pages)
    app.connect("html-page-context", offer_other_language)
    app.connect("autodoc-process-docstring", reference.as_rst)
    app.connect("build-finished", write_explanations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    """A page as it stands, to what MyST reads: with what the page asks for, and, for a layer, the rest of its sheet."""
    text, language = content[0], app.config.language
    if docname.startswith("layers/") and docname != "layers/index":
        text += sheets.rest(docname.removeprefix("layers/"), language)
    content[0] = markdown.Page(docname, language).expanded(text)


def offer_other_language(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The address of the same page in the other language, or of its first page."""
    other = {"en": "vi", "vi": "en"}[app.config.language]
    page = pagename if (markdown.SITE / other / f"{pagename}.md").exists() else "index"
    root = "../" * pagename.count("/")
    context["other_language"] = f"{root}vi/{page}.html" if other == "vi" else f"{root}../{page}.html"


def write_explanations(app: Sphinx, exception: Exception | None) -> None:
    """The interactive pages that sheets embed."""
    if exception is None:
        folder = Path(app.outdir, "explain")
        folder.mkdir(exist_ok=True)
        for layer, page in sheets.explanations():
            (folder / f"{layer}.html").write_text(page, encoding="utf-8")
