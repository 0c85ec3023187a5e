"""Dropout: what is kept is scaled up, so that the expected value stays; the gradient takes the same path.

    y = x·m / q        dL/dx = dL/dy·m / q        mask m of zeros and ones, probability q of a one

Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
"""

from __future__ import annotations

from torch import Tensor

from torchfromscratch.autograd.linear_map import linear_map


def _drop(input: Tensor, mask: Tensor, q: float) -> Tensor:
    """y = x·m / q, with a mask m, a boolean that broadcasts to x, and a number q."""
    scale = mask.to(input.dtype)
    return input * (scale if q == 1 else scale.div_(q))


# ---------------- torch's side: what is saved, vmap, forward mode

drop = linear_map("Drop", _drop, saves=1)
