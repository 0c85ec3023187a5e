"""The ways in which training ends early."""

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


class PeerLost(Exception):
    """Another process of this training has ended, so this one cannot go on; torchrun tells of the other's end.

    The command prints the message, without a traceback, and exits with code 1.
    """
