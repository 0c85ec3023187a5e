"""The algorithm that a caller chose, for each thread; `torchfromscratch.algorithm` sets it."""

from __future__ import annotations

import threading


class _Choice(threading.local):
    """Each thread's own choice: torch.compile follows it, which it does not for a ContextVar before torch 2.14."""

    def __init__(self) -> None:
        self.algorithm: str | None = None


choice = _Choice()


def chosen_algorithm() -> str | None:
    """The caller's choice, or None."""
    return choice.algorithm
