"""The documents of the repository, as a page of the site includes them.

They are written to be read where the repository is shown: formulas as $`x`$ and ```math, links to files. A page asks
for one in a comment, `<!-- include docs/errata.md -->`, or for a section of it, `<!-- include docs/use.md "Four" -->`;
titles are the page's own. `Page._answer` has what else can be asked for.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from extension import notebooks, reference, sheets

SITE = Path(__file__).parents[1]
ROOT = SITE.parents[1]

# documents that a page of another name includes
PAGES = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "docs/derivations.en.md": "derivations",
    "docs/derivations.vi.md": "derivations",
    "docs/teaching.md": "exercises",
    "docs/learn.md": "index",
    "exercises": "exercises",
}

ASKED = re.compile(r'^<!-- (?P<what>[\w-]+)(?: (?P<which>[^"\n]+?))?(?: "(?P<section>[^"\n]+)")? -->$', re.MULTILINE)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
RAW_LINK = re.compile(r'(?P<attribute>href)="(?P<target>[^":#]+\.md)(?P<anchor>#[^"]*)?"')
FENCED = re.compile(r"^ *(`{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$`(.+?)`\$", re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
PROGRAM = re.compile(r"^```python\n.*?^```$", re.MULTILINE | re.DOTALL)
LINES = re.compile(r"L(\d+)(-L\d+)?")


class Page:
    """A page of the site."""

    def __init__(self, docname: str, language: str) -> None:
        self.docname, self.language = docname, language

    def expanded(self, text: str, folder: str | None = None) -> str:
        """Text that lies in a folder of the repository (the page's own if None), for MyST."""
        if folder is None:
            folder = posixpath.join("docs/site", self.language, posixpath.dirname(self.docname))
        parts, at = [], 0
        for asked in ASKED.finditer(text):
            parts += [self._dialect(text[at : asked.start()], folder), self._answer(asked)]
            at = asked.end()
        return "".join([*parts, self._dialect(text[at:], folder)])

    def _answer(self, asked: re.Match) -> str:
        """What a comment asks for."""
        what, which = asked["what"], asked["which"]
        if what == "include":
            text = section((ROOT / which).read_text(encoding="utf-8"), asked["section"])
            return self.expanded(text, posixpath.dirname(which))
        if what == "notebook":
            return self._dialect(notebooks.as_markdown(ROOT / which), posixpath.dirname(which))
        if what == "program":
            path, _, number = which.rpartition(" ")
            return PROGRAM.findall((ROOT / path).read_text(encoding="utf-8"))[int(number) - 1]
        if what == "parameters":
            return sheets.parameters(posixpath.basename(self.docname), self.language)
        if what == "layers":
            return sheets.overview(self.language)
        if what == "exercises":
            return self._dialect(sheets.exercises(self.language), "docs")
        if what in ("code", "docstring"):
            return getattr(sheets, what)(which, root="../" * (3 + self.docname.count("/")))
        return reference.listing(what, which)

    def _dialect(self, text: str, folder: str) -> str:
        """Formulas and links as MyST writes them; what stands in code stays."""
        text = re.sub(r"^```math$", "```{math}", text, flags=re.MULTILINE)
        kept: list[str] = []

        def keep(part: str) -> str:
            kept.append(part)
            return f"\0{len(kept) - 1}\0"

        text = FENCED.sub(lambda found: keep(found[0]), text)
        text = FORMULA.sub(lambda found: keep(formula(found[1])), text)
        text = CODE.sub(lambda found: keep(found[0]), text)
        text = LINK.sub(lambda link: self._link(link, folder), text)
        text = RAW_LINK.sub(lambda link: self._raw_link(link, folder), text)
        while "\0" in text:
            text = re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], text)
        return text

    def _link(self, link: re.Match, folder: str) -> str:
        return f"{link['image']}[{link['text']}]({self._place(link['target'], folder, bool(link['image']))})"

    def _raw_link(self, link: re.Match, folder: str) -> str:
        """A link of HTML, which MyST passes on as it is: to the page as it will be called."""
        path, up = posixpath.normpath(posixpath.join(folder, link["target"])), "../" * self.docname.count("/")
        return f'{link["attribute"]}="{up}{docname_of(path)}.html{link["anchor"] or ""}"'

    def _place(self, target: str, folder: str, is_image: bool = False) -> str:
        """Where a link of a document in `folder` leads on the site."""
        if re.match(r"\w+:|#|\{", target):
            return target
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{self.docname} links to {path}, which does not exist")
        if is_image:
            return Path(os.path.relpath(ROOT / path, (SITE / self.language / self.docname).parent)).as_posix()
        if (SITE / self.language / f"{docname_of(path)}.md").exists():
            return f"/{docname_of(path)}.md" + (f"#{anchor}" if anchor else "")
        lines = LINES.fullmatch(anchor)
        return f"source:{path}" + (f"#L-{lines[1]}" if lines else "")


def docname_of(path: str) -> str:
    """The page that shows a document: errata for docs/errata.md, layers/linear for docs/site/en/layers/linear.md."""
    if path.endswith(".ipynb"):
        return "notebooks"
    return PAGES.get(path) or re.sub(r"^docs/(site/\w\w/)?", "", path).removesuffix(".md")


def formula(latex: str) -> str:
    return "{math}`" + " ".join(latex.split()) + "`"


def section(text: str, heading: str | None) -> str:
    """A document without its title, or one section of it."""
    if heading is None:
        return re.sub(r"\A# .*\n(\s*\*\[.*\]\(.*\)\*\n)?", "", text)
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"no section {heading!r}")
    return found[1]
