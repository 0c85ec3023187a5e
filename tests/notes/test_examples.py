"""The notes' worked examples, recomputed, and the page that shows them."""

import re
from pathlib import Path

import pytest

from torchfromscratch.notes.examples import EXAMPLES
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
