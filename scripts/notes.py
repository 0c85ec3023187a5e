"""Write docs/notes.md and the pictures, and point the other pages' links at the lines where the code stands now."""

from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.command_line import Parser
    from torchfromscratch.notes.algorithm_pictures import ALGORITHMS
    from torchfromscratch.notes.links import LINKED, refresh
    from torchfromscratch.notes.page import as_markdown
    from torchfromscratch.notes.pictures import LANGUAGES, PICTURES, pictures

ROOT = Path(__file__).parents[1]


def main() -> None:
    Parser(description=__doc__).parse_args()
    pages = {ROOT / "docs" / "notes.md": as_markdown()}
    for page in (ROOT / "docs" / name for name in LINKED):
        pages[page] = refresh(page.read_text(encoding="utf-8"), ROOT)
    for language in LANGUAGES:
        for name, svg in pictures(language, PICTURES | ALGORITHMS).items():
            pages[ROOT / "docs" / "pictures" / f"{name}.{language}.svg"] = svg
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page}")


if __name__ == "__main__":
    run(main)
