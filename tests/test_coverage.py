"""Every public name of torch.nn and torch.nn.functional is answered for, and docs/coverage.md says how."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from torchfromscratch import functional, nn
from torchfromscratch.coverage import COMPOSED, NAMESPACES, as_markdown, coverage

PAGE = (Path(__file__).parents[1] / "docs" / "coverage.md").read_text(encoding="utf-8")

# What is torch's own: it holds, moves or initialises modules, views a tensor, or multiplies matrices.
TORCHS_OWN = {
    *("Buffer", "Container", "DataParallel", "Identity", "Module", "ModuleDict", "ModuleList", "Parameter"),
    *("ParameterDict", "ParameterList", "Sequential", "Unflatten", "UninitializedBuffer", "UninitializedParameter"),
    *("LinearCrossEntropyOptions", "RNNBase", "RNNCellBase"),  # options, and what layers are derived from
    *("factory_kwargs", "grouped_mm", "scaled_grouped_mm", "scaled_mm", "ScalingType", "SwizzleType"),
}

# Not written yet.
MISSING: set[str] = set()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_name_is_answered_for(namespace: str) -> None:
    """A name that a newer torch adds fails here."""
    assert {name for name, way in coverage(namespace) if way == "missing"} <= MISSING


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_what_is_torchs_own_computes_no_layer(namespace: str) -> None:
    assert {name for name, way in coverage(namespace) if way == "torch's own"} <= TORCHS_OWN


def test_the_page_says_so() -> None:
    """Of the names that the installed torch has, but for those that are to be written."""
    written, true = (set(re.findall(r"^\| (\w+) \| (.+) \|", text, re.MULTILINE)) for text in (PAGE, as_markdown()))
    assert {(name, way) for name, way in true if name not in MISSING} <= written


def test_what_is_composed_is_a_function() -> None:
    assert all(name in vars(functional) for name in COMPOSED)


def test_torchs_own_are_found_by_their_names() -> None:
    assert nn.modules is torch.nn.modules
    assert nn.DataParallel is torch.nn.DataParallel
    for name in ("grouped_mm", "scaled_mm"):
        assert getattr(functional, name, None) is getattr(torch.nn.functional, name, None)
    with pytest.raises(AttributeError, match="no_such_name"):
        functional.no_such_name  # noqa: B018
