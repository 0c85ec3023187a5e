"""Every kernel, as it is launched, compiles for graphics cards: no spills, no more memory than there is."""

import pytest
import torch

from tests.triton.ahead_of_time import CARDS, assert_fits, launches

pytest.importorskip("triton", reason="the compiler is Triton's, which not every build of torch brings")

from torchfromscratch.kernels.triton import elementwise  # noqa: F401  defines the operations


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate(card: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.empty(4, 5, device="meta", dtype=dtype)
    (only,) = launches(monkeypatch, "elementwise", "Gate", [values, values], [])
    assert_fits(card, only)
