"""Files that survive being killed: a checkpoint is there whole, or the one before it still is."""

import errno
import io
import json
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from torchfromscratch.training.contents import NotACheckpoint, require_contents
from torchfromscratch.training.errors import UserError

LAST = "last.pt"
BEST = "best.pt"
METRICS = "metrics.jsonl"
LOG = "events.out.tfevents."  # what the names of TensorBoard's files begin with
UNFINISHED = ".unfinished"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that at every moment is either the old one or the new one, both complete, also after a power cut.

    Raises:
        UserError: if the file cannot be written (no permission, no space, ...); the old one remains.
    """
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        remains = "; what was there before is unchanged" if os.path.exists(path) else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{remains}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Has the names in a directory survive a power cut, where the system can do that.

    Raises:
        UserError: if the disk fails.
    """
    if os.name == "nt":  # opens no directories
        return
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise UserError(f"cannot write the directory {directory} to the disk: {error.strerror}") from error
    finally:
        os.close(opened)


def remove_unfinished(directory: Path) -> None:
    """Removes what killed processes were writing; whoever calls this holds the directory."""
    for path in directory.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def remove_logs(run_dir: Path) -> None:
    """Removes TensorBoard's logs from a run's directory."""
    for path in run_dir.glob(f"{LOG}*"):
        path.unlink()


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes the state atomically, in the format that `torch.load(path, weights_only=True)` reads.

    Raises:
        UserError: as `write_atomically`.
    """
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, content.getvalue())


def save_metrics(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes a line of JSON for each epoch.

    Raises:
        UserError: as `write_atomically`.
    """
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def load_checkpoint(path: Path, advice: str | None = None) -> dict[str, Any]:
    """Reads a checkpoint, onto the CPU.

    Args:
        advice: what to do if it cannot be read; None is for a run to go on with, and looks for its best checkpoint.

    Raises:
        UserError: if it is damaged, or is something else; the message ends with the advice.
    """
    try:
        state = _load_verified(path)
        require_contents(state)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something else than tensors, numbers and text, and was not opened: such a file can run any "
            f"program. {advice or way_out(path)}"
        ) from error
    except NotACheckpoint as error:
        raise UserError(f"{path} is not a checkpoint of a training with this command: {error}") from error
    except Exception as error:
        reason = _in_one_line(error)
        raise UserError(f"the checkpoint {path} is damaged ({reason}). {advice or way_out(path)}") from error
    return state


def _load_verified(path: Path) -> Any:
    # torch.load does not look at the checksums in its own files, so a flipped bit would pass unseen; nor does
    # torch.save compress, so a file that does is none of its own, and could be larger than any memory.
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise zipfile.BadZipFile("it is compressed")
        if (broken := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"checksum of {broken} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


def way_out(path: Path) -> str:
    """What to do, in words, where a run's last checkpoint cannot be read."""
    best = path.with_name(BEST)
    try:
        state = _load_verified(best)
        require_contents(state)
    except Exception:
        return "Start a new run without --resume."
    return (
        f"{best} is whole and holds epoch {state['position']['epoch']}: copy it to {path} and use --resume again "
        "to go on from there, or start a new run without --resume."
    )


def _in_one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
