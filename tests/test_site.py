"""The site: a sheet for every layer, in both languages; and all of it, built without a warning."""

import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from torchfromscratch.coverage import coverage

SITE = Path(__file__).parents[1] / "docs" / "site"
LANGUAGES = ("en", "vi")
# what the sheet of a layer has, in the order of the lecture notes'
PARTS = {
    "en": ["Formula", "Parameters", "How it works", "When to use it", "Limits", "Where it is used"],
    "vi": ["Công thức", "Tham số", "Cơ chế hoạt động", "Nên dùng khi nào", "Hạn chế", "Ứng dụng"],
}


@pytest.fixture(scope="module")
def sheets() -> ModuleType:
    """The table of sheets. It needs no Sphinx; only `nox -s docs` does."""
    sys.path.insert(0, str(SITE))
    try:
        from extension import markdown, sheets
    finally:
        sys.path.remove(str(SITE))
    assert SITE.parents[1] == markdown.ROOT
    return sheets


def sheet(name: str, language: str) -> str:
    return (SITE / language / "layers" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("namespace", "kind"), [("torch.nn", "layers"), ("torch.nn.functional", "functions")])
def test_every_layer_by_hand_has_a_sheet(sheets: ModuleType, namespace: str, kind: str) -> None:
    by_hand = {name for name, way in coverage(namespace) if way != "torch's own"}
    named = [name for one in sheets.SHEETS.values() for name in getattr(one, kind).split()]
    assert len(named) == len(set(named))
    torch_has = set(dir(importlib.import_module(namespace)))  # an older one has not all that the sheets name
    assert {sheets.VARIANT.sub("", name) for name in by_hand} == set(named) & torch_has


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sheet_has_what_the_lecture_notes_sheets_have(sheets: ModuleType, language: str) -> None:
    written = {path.stem for path in (SITE / language / "layers").glob("*.md")} - {"index"}
    assert written == set(sheets.SHEETS)
    for name in written:
        assert re.findall(r"^## (.*)$", sheet(name, language), re.MULTILINE) == PARTS[language], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_list_of_layers_leads_to_every_sheet(sheets: ModuleType, language: str) -> None:
    contents = re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)\n```", sheet("index", language), re.DOTALL)
    assert contents is not None
    assert contents[1].split() == list(sheets.SHEETS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_finds_what_it_asks_for(sheets: ModuleType, language: str) -> None:
    from extension.markdown import Page

    for path in sorted((SITE / language).rglob("*.md")):
        docname = path.relative_to(SITE / language).with_suffix("").as_posix()
        page = Page(docname, language).expanded(path.read_text(encoding="utf-8"))
        if docname.removeprefix("layers/") in sheets.SHEETS:
            page += Page(docname, language).expanded(sheets.rest(docname.removeprefix("layers/"), language))
            assert "{literalinclude}" in page
            assert "| operator |" in page or sheets.WORDS[language]["none"] in page
        assert "<!-- " not in page, docname


def test_both_languages_have_the_same_pages() -> None:
    english, vietnamese = ({path.relative_to(SITE / one) for path in (SITE / one).rglob("*.md")} for one in LANGUAGES)
    assert english == vietnamese


def test_numbers_of_parameters_are_counted(sheets: ModuleType) -> None:
    assert "| `Conv2d(3, 16, 3)` | weight | 16 × 3 × 3 × 3 | 432 |" in sheets.parameters("convolution", "en")
    assert "| **448** |" in sheets.parameters("convolution", "en")


def test_both_derivations_have_the_same_sections(sheets: ModuleType) -> None:
    counts = [len(re.findall(r"^## ", sheets._derivations(language), re.MULTILINE)) for language in LANGUAGES]
    assert counts[0] == counts[1]


def test_the_errata_are_the_same_in_both_languages() -> None:
    english, vietnamese = (
        path.read_text(encoding="utf-8") for path in (SITE.parent / "errata.md", SITE / "vi/errata.md")
    )
    for pattern in (r"^### .*$", r"`test_e\w+`"):
        found = re.findall(pattern, english, re.MULTILINE)
        assert found
        assert re.findall(pattern, vietnamese, re.MULTILINE) == found


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sphinx") is None, reason='sphinx is not installed: pip install ".[docs]"')
def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    build = subprocess.run([sys.executable, str(SITE / "build.py"), str(tmp_path)], capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
