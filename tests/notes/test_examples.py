"""The notes' worked examples, recomputed, and the page that shows them."""

import re
from pathlib import Path

import pytest

from torchfromscratch.notes.examples import EXAMPLES
from torchfromscratch.notes.links import LINK, LINKED, refresh
from torchfromscratch.notes.page import as_markdown

ROOT = Path(__file__).parents[2]
ERRATA = (ROOT / "docs" / "errata.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_layers_compute_what_the_notes_print_or_the_errata_say_why_not(example):
    for row in example().rows:
        assert row.agrees == (row.erratum == ""), f"{row.what}: {row.printed} printed, {row.computed} computed"
        if row.erratum:
            assert re.search(rf"^### {row.erratum}\b", ERRATA, re.M), f"{row.what}: no {row.erratum} in the errata"


def test_page_is_the_one_that_the_layers_compute():
    page = (ROOT / "docs" / "notes.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "run: python scripts/notes.py"


@pytest.mark.parametrize("name", LINKED)
def test_pages_link_to_the_lines_that_implement_them(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == refresh(page, ROOT), "run: python scripts/notes.py"


def test_derivations_are_the_same_in_both_languages():
    pages = [(ROOT / "docs" / f"derivations.{language}.md").read_text(encoding="utf-8") for language in ("en", "vi")]
    links, sections, formulas = zip(
        *((LINK.findall(page), re.findall(r"^## ", page, re.M), page.count("```math")) for page in pages), strict=True
    )
    assert links[0] == links[1]
    assert sections[0] == sections[1]
    assert formulas[0] == formulas[1]
