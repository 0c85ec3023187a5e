"""The programs of docs/torch.md: torch is wrong in the versions that the page names, and these layers are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[1] / "docs" / "torch.md").read_text(encoding="utf-8")
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PREAMBLE, *CHAPTERS = PAGE.split("\n## ")
INSTALLED = torch.__version__.partition("+")[0]


def equal(given: torch.Tensor, right: torch.Tensor) -> bool:
    return given.shape == right.shape and torch.allclose(given, right, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.partition("\n")[0])
def test_torch_is_wrong_and_these_layers_are_right(chapter: str) -> None:
    (program,) = PROGRAM.findall(chapter)
    seen, unseen = (re.search(rf"{words} ([\d., ]+\d)", chapter) for words in ("Seen in", "not in"))
    assert seen is not None
    if "there is no such function" in chapter and INSTALLED not in seen[1]:
        pytest.skip(f"torch {INSTALLED} may not have the function that is wrong in {seen[1]}")
    torch.manual_seed(0)
    torch._dynamo.reset()
    names: dict[str, Any] = {}
    exec(PROGRAM.findall(PREAMBLE)[0], names)
    exec(program, names)
    assert equal(names["ours"], names["right"])
    if INSTALLED in seen[1]:
        assert not equal(names["theirs"], names["right"])
    if unseen is not None and INSTALLED in unseen[1]:
        assert equal(names["theirs"], names["right"])
