"""Ctrl-C and termination: noted at once, acted upon between two steps, when nothing is half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch.distributed as dist

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Pending:
    """The first signal that asked this process to stop; 0 while there was none."""

    signal: int = 0


@contextmanager
def defer_signals() -> Iterator[Pending]:
    """Within it signals are only noted, but for a second Ctrl-C, which acts as usual, for the impatient.

    Under torchrun it does not: there one Ctrl-C reaches each process as several signals.
    """
    pending = Pending()
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        pending.signal = pending.signal or number
        if not dist.is_torchelastic_launched():
            signal.signal(signal.SIGINT, usual[signal.SIGINT])

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield pending
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
