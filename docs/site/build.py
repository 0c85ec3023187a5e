"""Build the site in both languages, without a warning, and follow its links: python docs/site/build.py [FOLDER]"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parent
FOLDER = SITE.parents[1] / "build" / "site"
LANGUAGES = {"en": ".", "vi": "vi"}

MADE = re.compile(r'"anchor":"([^"]+)"')  # the places that an interactive page makes as it opens


def main() -> int:
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    for language, place in LANGUAGES.items():
        if code := build(language, folder / place):
            return code
    wrong = wrong_links(folder)
    print("\n".join([*wrong, f"{folder}/index.html: {len(wrong)} wrong links"]))
    return bool(wrong)


def build(language: str, folder: Path) -> int:
    """Nothing is kept from one build to the next: pages are made of the package, whose changes Sphinx does not see."""
    options = ["--quiet", "--fail-on-warning", "--define", f"language={language}", "--conf-dir", str(SITE)]
    with tempfile.TemporaryDirectory() as doctrees:
        options += ["--doctree-dir", doctrees]
        return subprocess.run([sys.executable, "-m", "sphinx", *options, SITE / language, folder]).returncode


class Page(HTMLParser):
    """What a page links to, what it loads, and the places that can be linked to on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        text = path.read_text(encoding="utf-8")
        self.places = set(MADE.findall(text))
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value is not None}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if "href" in given:
            (self.links if tag == "a" else self.loaded).append(given["href"])
        self.loaded += [given[name] for name in ("src", "data", "poster") if name in given]


def wrong_links(folder: Path) -> list[str]:
    """Links to files and places that do not exist, and everything that is loaded from another host."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        found = [(link, False) for link in page.links] + [(link, True) for link in page.loaded]
        told = (
            f"{path.relative_to(folder.resolve())}: {link}"
            for link, loaded in found
            if not leads(path, link, loaded, pages)
        )
        wrong += told
    return wrong


def leads(path: Path, link: str, loaded: bool, pages: dict[Path, Page]) -> bool:
    """Does a link lead to a file of the site, and to a place on it, or, if nothing is loaded, to another host?"""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme == "data" or not loaded
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target not in pages:
        return target.is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].places


if __name__ == "__main__":
    sys.exit(main())
