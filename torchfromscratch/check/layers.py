"""The layers that can be checked, and which of them `like` means."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfromscratch.check import formulas


class CannotCheckError(ValueError):
    """What was given cannot be checked; the message says why, and what would do."""


@dataclass(frozen=True)
class Layer:
    """A layer: its name in torch.nn.functional, its definition, and where its gradient is derived."""

    name: str
    formula: Callable[..., Any]
    derivation: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments, in torch.nn.functional's order."""
        return tuple(inspect.signature(self.formula).parameters)

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of arguments that may be left out."""
        parameters = inspect.signature(self.formula).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def __call__(self, **arguments: Any) -> tuple[Tensor, ...]:
        """The outputs."""
        output = self.formula(**arguments)
        return output if isinstance(output, tuple) else (output,)


_TABLE = [
    *[Layer(f"conv{n}d", formulas.conv, "Convolution") for n in (1, 2, 3)],
    *[Layer(f"conv_transpose{n}d", formulas.conv_transpose, "Transposed convolution") for n in (1, 2, 3)],
]
LAYERS = {layer.name: layer for layer in _TABLE}


def find(like: Any) -> Layer:
    """The layer of this name, or the one that this function of torch.nn.functional computes."""
    name = like if isinstance(like, str) else getattr(like, "__name__", "")
    if name in LAYERS:
        return LAYERS[name]
    close = difflib.get_close_matches(name, LAYERS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(LAYERS)}"
    raise CannotCheckError(f"no layer {like!r} to compare with: {hint}")
