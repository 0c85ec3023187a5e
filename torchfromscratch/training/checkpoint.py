"""Files that survive being killed: a checkpoint is there whole, or the one before it still is."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from torchfromscratch.training.errors import UserError

LAST = "last.pt"
BEST = "best.pt"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that at every moment is either the old one or the new one, both complete.

    Raises:
        UserError: if the file cannot be written (no permission, no space, ...); the old one remains.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; what was there before is unchanged") from error


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes the state atomically, in the format that `torch.load(path, weights_only=True)` reads.

    Raises:
        UserError: as `write_atomically`.
    """
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, content.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, onto the CPU.

    Raises:
        UserError: if it is damaged; the message names the run's best checkpoint if that is whole.
    """
    try:
        state = _load_verified(path)
    except Exception as error:
        raise UserError(f"the checkpoint {path} is damaged ({error}). {_way_out(path)}") from error
    if not {"config", "position"} <= set(state):
        raise UserError(f"{path} is not a checkpoint of a training with this command")
    return state


def _load_verified(path: Path) -> dict[str, Any]:
    # torch.load does not look at the checksums in its own files, so a flipped bit would pass unseen.
    with zipfile.ZipFile(path) as archive:
        if (broken := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"checksum of {broken} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


def _way_out(path: Path) -> str:
    best = path.with_name(BEST)
    try:
        epoch = _load_verified(best)["position"]["epoch"]
    except Exception:
        return "Start a new run without --resume."
    return (
        f"{best} is whole and holds epoch {epoch}: copy it to {path} and use --resume again "
        "to go on from there, or start a new run without --resume."
    )
