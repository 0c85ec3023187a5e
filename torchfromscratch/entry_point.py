"""How every command of this package begins and ends: whatever is no mistake of the code is one line, not a traceback.

    from torchfromscratch.entry_point import loading, run

    with loading():
        import torch  # and all else that takes long

    if __name__ == "__main__":
        run(main)

Exit codes: what `main` returns, 2 for something that the user can put right, 130 after Ctrl-C, and 141 if nobody reads
the output any more, as shells say of other programs. Nothing but the standard library is loaded here, and the package
imports this module first: so Ctrl-C is one line also while torch is loaded.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import NoReturn

from torchfromscratch.errors import UserError

NAME = "torchfromscratch"
SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

WRONG, INTERRUPTED, UNREAD = 2, 128 + signal.SIGINT, 141  # SIGPIPE, which Windows has not, is 13

# How Python, its libraries and the system's loader say that memory ran out, besides MemoryError.
OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and ends the process with the exit code that it returns, None for 0."""
    with _report_in_one_line():
        code = main()
    sys.exit(code or 0)


def loading() -> AbstractContextManager[None]:
    """Around imports that take long: the process that runs one of the commands ends as `run` ends it."""
    if not _is_command():
        return nullcontext()
    _prepare()
    return _report_in_one_line()


def reason(error: BaseException) -> str | None:
    """What to tell the user of an error, in one line; None for a mistake of the code, which needs its traceback.

    Nor is there anything to tell if what should be read is read no more.
    """
    if isinstance(error, BrokenPipeError):
        return None
    if _is_out_of_memory(error):
        return f"not enough memory ({(str(error).strip() or type(error).__name__).splitlines()[-1]})"
    if isinstance(error, UserError | OSError) or (isinstance(error, ImportError) and not _is_ours(error)):
        return " ".join(str(error).split())
    return None


def _is_command() -> bool:
    """Whether this process runs one of scripts/, the installed command or `python -m torchfromscratch`."""
    if sys.argv[:1] == ["-m"]:  # so Python calls a module while it is looked for, and its package loaded
        return ("-m", NAME) in pairwise(sys.orig_argv)
    path = Path(sys.argv[0]) if sys.argv else Path()
    return path.stem == NAME or path.resolve().parent == SCRIPTS


def _prepare() -> None:
    """Readies the process for any environment: closed streams, narrow encodings, no place to show a window."""
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            # Takes the lowest free descriptor, the stream's own, which a file of the run would be given otherwise.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends the command in an orderly way, a second one at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


@contextmanager
def _report_in_one_line() -> Iterator[None]:
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _leave(INTERRUPTED, "stopped by Ctrl-C")
    except BrokenPipeError:
        _leave(UNREAD)
    except Exception as error:
        line = reason(error)
        if line is None:
            raise
        _leave(WRONG, f"error: {line}")


def _leave(code: int, line: str = "") -> NoReturn:
    with suppress(OSError):
        print(line, end="\n" if line else "", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, RuntimeError | OSError | ImportError):
        return any(text in str(error).lower() for text in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


def _is_ours(error: ImportError) -> bool:
    return (error.name or "").partition(".")[0] == NAME
