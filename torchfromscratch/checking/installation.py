"""torch.nn.functional itself, put to the formulas: the kernels of this installation that give wrong numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking.case import Case, Numbers
from torchfromscratch.checking.checks import CheckOfLayer
from torchfromscratch.checking.conduct import Fault
from torchfromscratch.checking.layers import LAYERS, CannotCheckError, Layer
from torchfromscratch.checking.report import Finding, Report
from torchfromscratch.checking.subject import Subject
from torchfromscratch.checking.trial import Trial

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}  # of the largest element
NOT_THERE = ("dropout",)  # torch takes no mask


class CheckOfTorch(CheckOfLayer):
    """A check of torch's own function, in one dtype on one device."""

    def __init__(self, name: str, dtype: torch.dtype, device: str, cases: int, seed: int) -> None:
        is_cell = name.endswith("_cell")
        function = getattr(torch if is_cell else torch.nn.functional, name)
        super().__init__(function, name, {}, False, cases, seed)
        self.precision = dtype

        def on_device(**arguments: Any) -> Any:
            moved = {key: _move(x, device, dtype) for key, x in arguments.items()}
            output = function(*moved.values()) if is_cell else function(**moved)
            return [_back(y) for y in output] if isinstance(output, (tuple, list)) else _back(output)

        takes = tuple(name for name in self.layer.arguments if name not in ("size_average", "reduce"))
        text = f"{'torch' if is_cell else 'torch.nn.functional'}.{name}"
        self.subject = Subject(on_device, takes, text, by_keyword=True, pairs=name == "lstm_cell")
        self.source = self.drawing.strategy(self.layer, takes, {})

    def cases(self) -> list[Case]:
        """Those that are drawn, and those in which a kernel is known to have been wrong."""
        return [*known_cases(self.layer), *super().cases()]

    def attempt(self, case: Case) -> Trial:
        """One case, whose errors may be those of the dtype."""
        trial = super().attempt(_round_case(case, self.precision))
        trial.tolerance = TOLERANCES.get(self.precision, trial.tolerance)
        return trial

    def faults(self) -> list[Fault]:
        """Only numbers are looked at."""
        return []

    def _single(self, what: str, wrong: Sequence[Trial]) -> list[Finding]:
        """Errors of the dtype are none of torch's."""
        return []

    def _is_single(self, trial: Trial, what: str) -> bool:
        return self.precision != torch.float64 and trial.is_rounding(what, self.precision)


def known_cases(layer: Layer) -> list[Case]:
    """torch 2.14.1 on CPUs: norms of a batch of one, contiguous, with a dL/dy whose channels lie innermost."""
    if layer.name not in ("batch_norm", "instance_norm"):
        return []
    arguments = {
        **dict.fromkeys(layer.arguments),
        **layer.defaults,
        "input": Numbers("real").tensor(1, 8, 6, 6),
        "weight": Numbers("small").tensor(8),
        "bias": Numbers("small", 1).tensor(8),
        "training": True,
    }
    arguments = {name: arguments[name] for name in layer.arguments}
    return [Case(arguments, Numbers("whole", 2, "rows"), layer.constants)]


def _move(x: Any, device: str, dtype: torch.dtype) -> Any:
    if isinstance(x, (tuple, list)) and any(isinstance(part, Tensor) for part in x):
        return tuple(_move(part, device, dtype) for part in x)
    if not isinstance(x, Tensor):
        return x
    return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def _back(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64)


def _round_case(case: Case, dtype: torch.dtype) -> Case:
    """The case with numbers that the dtype has."""
    arguments = {
        name: x.to(dtype).to(x.dtype) if isinstance(x, Tensor) and x.is_floating_point() and dtype != x.dtype else x
        for name, x in case.arguments.items()
    }
    return Case(arguments, case.cotangent, case.constants)


def check_torch(
    names: Sequence[str] = (), device: str = "cpu", cases: int = 200, seed: int = 0
) -> Iterator[tuple[str, torch.dtype, Report | str]]:
    """For each layer and dtype the report, or why there is none: wrong numbers of the installed torch.nn.functional."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise CannotCheckError(f"cannot use device {device}: {str(error).splitlines()[0]}") from error
    for name in names or [name for name in LAYERS if name not in NOT_THERE]:
        for dtype in DTYPES:
            try:
                yield name, dtype, CheckOfTorch(name, dtype, device, cases, seed).report()
            except CannotCheckError as error:
                yield name, dtype, str(error)
