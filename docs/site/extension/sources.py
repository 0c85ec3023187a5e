"""Pages of source: each file that a page links to, with a place for each line."""

from __future__ import annotations

import html
import posixpath
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.application import Sphinx

from extension.markdown import ROOT


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Lead links to `source:PATH#L-LINE` to the page of that file, and those to `generated:PATH` there."""
    for reference in doctree.findall(nodes.reference):
        scheme, _, target = reference.get("refuri", "").partition(":")
        if scheme in ("source", "generated"):
            path, _, anchor = target.partition("#")
            uri = app.builder.get_relative_uri(docname, f"source/{path}" if scheme == "source" else path)
            reference["refuri"] = uri + (f"#{anchor}" if anchor else "")
            reference["internal"] = True


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every file that is linked to, highlighted."""
    for path in sorted(linked(app)):
        text = (ROOT / path).read_text(encoding="utf-8")
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        code = highlight(text, lexer, HtmlFormatter(linenos="inline", linespans="L", cssclass="highlight"))
        title = html.escape(path)
        body = f'<h1 class="path">{title}</h1><div class="highlight-source notranslate">{code}</div>'
        yield f"source/{path}", {"title": posixpath.basename(path), "body": body}, "page.html"


def linked(app: Sphinx) -> set[str]:
    """The files that pages of the site link to."""
    found = set()
    for docname in app.env.found_docs:
        for reference in app.env.get_doctree(docname).findall(nodes.reference):
            scheme, _, target = reference.get("refuri", "").partition(":")
            if scheme == "source":
                found.add(target.partition("#")[0])
    return found
