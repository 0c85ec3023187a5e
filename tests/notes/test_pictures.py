"""The pictures of derivations and of algorithms are those that the code draws, and their numbers are the layers'."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.test_explain import worked_out
from torchfromscratch.notes.algorithm_pictures import ALGORITHMS
from torchfromscratch.notes.drawing import TINTS
from torchfromscratch.notes.pictures import LANGUAGES, PICTURES, VIETNAMESE, batch_norm_paths, pictures

ROOT = Path(__file__).parents[2]
DRAWN = {language: pictures(language, PICTURES | ALGORITHMS) for language in LANGUAGES}
PAGES = {"docs/derivations.{}.md": PICTURES, "docs/site/{}/fast.md": ALGORITHMS}
WITHOUT_SUMS = {"max_pooling", "batch_norm_paths", "windows", "reference", "im2col", "winograd", "fft", "pointwise"}
each = pytest.mark.parametrize("name", PICTURES | ALGORITHMS)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_committed_pictures_are_those_that_the_code_draws() -> None:
    drawn = {f"{name}.{language}.svg": svg for language, named in DRAWN.items() for name, svg in named.items()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "pictures").glob("*.svg")}
    assert committed.keys() == drawn.keys()
    for name, svg in drawn.items():
        assert committed[name] == svg, f"{name}: run: python scripts/notes.py"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("page", PAGES)
def test_each_picture_stands_in_its_page_with_words_for_who_cannot_see_it(page: str, language: str) -> None:
    text = (ROOT / page.format(language)).read_text(encoding="utf-8")
    shown = re.findall(r"^!\[([^\]]+)\]\([./]*pictures/(\w+)\.(\w+)\.svg\)$", text, re.MULTILINE)
    assert [(name, of) for _, name, of in shown] == [(name, language) for name in PAGES[page]]
    assert all(len(words) > 60 for words, _, _ in shown)


@each
def test_each_sum_comes_to_what_is_printed_behind_it(name: str) -> None:
    sums = [re.fullmatch(r"[^=]* = ([^=]+) = ([^=]+)", text) for text in texts(DRAWN["en"][name])]
    found = [(worked_out(each[1]), worked_out(each[2])) for each in sums if each]
    assert found or name in WITHOUT_SUMS
    for computed, printed in found:
        assert computed == pytest.approx(printed, rel=1e-3)


@each
def test_both_languages_show_the_same_numbers_and_every_word_is_translated(name: str) -> None:
    english, vietnamese = (texts(DRAWN[language][name]) for language in ("en", "vi"))
    words = VIETNAMESE | {f"channel {i}": VIETNAMESE["channel {}"].format(i) for i in range(2)}
    assert [words.get(text, text) for text in english] == vietnamese
    untranslated = {text for text in english if re.search(r"[a-z]{4,} [a-z]", text)} - words.keys()
    assert not untranslated


@each
def test_every_colour_is_defined_in_the_light_and_in_the_dark(name: str) -> None:
    svg = DRAWN["en"][name]
    style = re.search(r"<style>(.*)@media\(prefers-color-scheme:dark\)\{(.*)\}</style>", svg)
    assert style
    for kind in set(re.findall(r'class="cell (\w+)"', svg)):
        assert kind in TINTS
        assert all(f"rect.{kind}{{" in rules for rules in style.groups())


def test_the_three_paths_add_up_to_the_layers_gradient() -> None:
    paths = batch_norm_paths()
    torch.testing.assert_close(paths["directly"] + paths["through μ"] + paths["through σ²"], paths["dL/dx"])
