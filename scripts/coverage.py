"""Write docs/coverage.md: how each public name of torch.nn and torch.nn.functional is answered for."""

from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    from torchfromscratch.command_line import Parser
    from torchfromscratch.coverage import as_markdown

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
HEAD = """# Coverage

How `torchfromscratch.nn` and `torchfromscratch.functional` answer for each public name of torch.nn and
torch.nn.functional: by hand, composed of what is by hand, or with torch's own where that holds or moves modules, views
a tensor or multiplies matrices. Modules call the function of their name. This file is written by

    python scripts/coverage.py

"""


def main() -> None:
    Parser(description=__doc__).parse_args()
    PAGE.write_text(HEAD + as_markdown(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    run(main)
