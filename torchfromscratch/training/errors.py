"""The two ways in which training ends early and on purpose."""


class UserError(Exception):
    """Something only the user can put right; the message says what was asked for and what to do.

    The command prints the message, without a traceback, and exits with code 2.
    """


class Interrupted(Exception):
    """A signal asked training to stop, and everything needed to go on has been saved.

    Attributes:
        signal: the signal's number; the command exits with 128 + signal, as shells do.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal
