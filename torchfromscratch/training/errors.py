"""The two ways in which training ends early and on purpose."""

from torchfromscratch.errors import UserError

__all__ = ["Interrupted", "UserError"]


class Interrupted(Exception):
    """A signal asked training to stop, and everything needed to go on has been saved.

    Attributes:
        signal: the signal's number; the command exits with 128 + signal, as shells do.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal
