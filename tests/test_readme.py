"""The README's commands are those that are run, its picture is what `explain` draws, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from torchfromscratch.explaining.command import example

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)#\s]+)(#[^)\s]*)?\)")


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    trains, tests = re.findall(r"^```sh\n(.+)\n```$", README, re.MULTILINE)
    assert trains.endswith("train_cifar.py --dataset digits")
    assert tests.endswith("python -m pytest")
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_moving_picture_shows_each_step_and_is_small() -> None:
    path = ROOT / "docs" / "explain.gif"
    assert "](docs/explain.gif)" in README
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as picture:
        assert picture.n_frames == sum(len(part.steps) for part in example("conv2d", "--no-bias").passes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_to_a_file(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_each_page_is_reached_from_the_readme() -> None:
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in found:
            found.add(page)
            links = [(page.parent / target).resolve() for target, _ in LINK.findall(page.read_text(encoding="utf-8"))]
            waiting += [link for link in links if link.suffix == ".md" and link.exists()]
    assert set(PAGES) <= found


def test_the_readme_is_a_door() -> None:
    first = README.split("\n\n")[1]
    assert len(first.splitlines()) <= 5
    assert len(README.splitlines()) < 90
    assert README.count("| --- |") == 2
