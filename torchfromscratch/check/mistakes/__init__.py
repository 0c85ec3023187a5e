"""Tables of mistakes: how each wrong formula looks.

A row is a wrong formula that is computed and compared with what was given, in every wrong case. `forward` rows are
another layer's definition, whose gradients are those of that other definition; `gradient` rows are wrong gradients
of the right layer.
"""

from torchfromscratch.check.mistakes.convolution import CONVOLUTION
from torchfromscratch.check.mistakes.row import Mistake

TABLES = {f"conv{n}d": CONVOLUTION for n in (1, 2, 3)}


def of(name: str) -> tuple[Mistake, ...]:
    """The mistakes that are made with this layer."""
    return TABLES[name]
