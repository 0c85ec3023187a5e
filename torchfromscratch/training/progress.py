"""What the user sees while training runs: a bar in a terminal, plain lines anywhere else."""

import io
import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30


class Progress:
    """How far training is, how fast, how well, and how long it will still take.

    Args:
        total: pictures to train on, over all epochs.
        done: how many of them an earlier run has already seen.
        shown: False on all processes but the main one.
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        self.shown = shown
        self.terminal = sys.stderr.isatty()
        self.last_line = time.monotonic()
        self.bar = tqdm(
            total=total,
            initial=done,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=self.terminal,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {rate_fmt}, {remaining} left{postfix}"
            if self.terminal
            else "{desc} {percentage:3.0f}%, {rate_fmt}, {remaining} left{postfix}",
            file=sys.stderr if self.terminal else io.StringIO(),
            mininterval=0.1 if self.terminal else SECONDS_BETWEEN_LINES,
            disable=not shown,
            leave=False,
        )

    def advance(self, images: int) -> None:
        """Counts images that were trained on."""
        self.bar.update(images)
        if not self.terminal and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.say(str(self.bar))

    def describe(self, epoch: int, loss: float, accuracy: float, data_wait_share: float) -> None:
        """Shows an epoch so far: its number, loss, accuracy, and the share of time spent waiting for data."""
        self.bar.set_description(f"epoch {epoch}", refresh=False)
        self.bar.set_postfix_str(
            f"loss {loss:.3f}, accuracy {accuracy:.1%}, data wait {data_wait_share:.1%}", refresh=False
        )

    def say(self, line: str) -> None:
        """Prints a line that stays, on standard output."""
        if self.shown:
            self.bar.write(line)
            sys.stdout.flush()

    def note(self, line: str) -> None:
        """Prints a line that stays, on standard error."""
        if self.shown:
            self.bar.write(f"note: {line}", file=sys.stderr)

    def close(self) -> None:
        self.bar.close()
