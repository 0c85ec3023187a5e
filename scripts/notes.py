"""Write docs/notes.md: the worked examples of the lecture notes beside what the layers compute."""

from pathlib import Path

from torchfromscratch.notes.page import as_markdown

if __name__ == "__main__":
    page = Path(__file__).parents[1] / "docs" / "notes.md"
    page.write_text(as_markdown(), encoding="utf-8")
    print(f"wrote {page}")
