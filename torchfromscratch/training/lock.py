"""One run at a time in a directory: a lock of the operating system, which ends with the process that holds it.

The standard library's locks, and not the package filelock: that one falls back, where a file system has no locks, to
a marker that a killed process leaves behind.
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchfromscratch.training.errors import UserError

LOCK = ".lock"

if sys.platform == "win32":
    import msvcrt

    # Windows lets nobody read a locked byte, so the one that is locked lies behind those that name the holder.
    LOCKED_BYTE = 1 << 20

    def _lock(file: int) -> None:
        os.lseek(file, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


HELD_ALREADY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class Held(UserError):
    """Another run holds the directory; the message says which process that is."""


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Holds a run's directory, which exists, for this process alone; removes it in the end if it is empty.

    Raises:
        Held: if another process holds it.
        UserError: if nothing can be written there.
    """
    path = directory / LOCK
    with _as_user_errors(directory):
        file = _open_locked(path)
    try:
        with _as_user_errors(directory):
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()} {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):  # as on Windows, where no open file can be removed; nobody minds one that is not locked
            path.unlink()
        os.close(file)
        with suppress(OSError):
            directory.rmdir()


@contextmanager
def _as_user_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write in the run directory {directory}: {error.strerror or error}") from error


def _open_locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
        except OSError as error:
            if error.errno in HELD_ALREADY:
                holder = os.read(file, 1000).decode(errors="replace")
                os.close(file)
                raise Held(
                    f"{_process(holder)} is training in {path.parent} now: wait until it has ended, or stop it, "
                    "or choose another --run-dir or --name"
                ) from error
            if error.errno not in NO_LOCKS_HERE:
                os.close(file)
                raise
            print(f"note: {path.parent} knows no locks: see to it that no second run is started there", file=sys.stderr)
            return file
        if _is_at(path, file):
            return file
        os.close(file)  # whoever held it removed it between the opening and the locking


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _process(holder: str) -> str:
    """The process that a lock file names, in words."""
    number, _, host = holder.partition(" ")
    if not number:
        return "another process"
    return f"process {number}" if host == socket.gethostname() else f"process {number} on {host}"
