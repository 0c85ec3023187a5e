"""Ctrl-C and termination: noted at once, acted upon between two steps, when nothing is half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Pending:
    """The signal that asked this process to stop; 0 while there was none."""

    signal: int = 0


@contextmanager
def deferred_signals() -> Iterator[Pending]:
    """Within it, the first signal is only noted; a second one acts as usual, for the impatient."""
    pending = Pending()
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        pending.signal = number
        restore()

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield pending
    finally:
        restore()
