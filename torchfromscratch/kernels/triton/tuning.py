"""Which configuration a kernel is launched with: the rule's, or the fastest, if the user asks for measurements.

With TORCHFROMSCRATCH_AUTOTUNE=1, the first launch of a kernel for new shapes on a GPU times each candidate. The fastest
is kept in the user's cache folder, for this graphics card and these versions. Nothing is measured otherwise.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Configuration = dict[str, Any]


def is_asked_for() -> bool:
    """Whether the user wants measurements."""
    return os.environ.get("TORCHFROMSCRATCH_AUTOTUNE") == "1"


def choose(
    name: str,
    shapes: Sequence[object],
    tile: Configuration,
    run: Callable[[Configuration], None],
    like: Tensor,
) -> Configuration:
    """The candidate that runs fastest for these shapes; the rule's tile, where nothing is measured."""
    if not (like.is_cuda and is_asked_for()):
        return tile
    return fastest(f"{name} {list(shapes)} {like.dtype}", candidates(tile), run, conditions(like), time_on_gpu)


def candidates(tile: Configuration) -> list[Configuration]:
    """The tile of the rule, and those that are measured beside it."""
    half = max(16, tile["block_positions"] // 2)
    changes: tuple[Configuration, ...] = (
        {},
        {"warps": 12 - tile["warps"]},
        {"stages": 2},
        {"stages": 4},
        {"block_positions": half},
    )
    return [{**tile, **change} for change in changes]


def fastest(
    key: str,
    candidates: Sequence[Configuration],
    run: Callable[[Configuration], None],
    conditions: str,
    time: Callable[[Callable[[], None]], float],
) -> Configuration:
    """The fastest candidate of this key, remembered or measured now. One that cannot be launched is none."""
    file = cache_file(conditions)
    remembered = read(file)
    if remembered.get(key) in candidates:
        return remembered[key]
    times: list[float] = []
    for candidate in candidates:
        try:
            times.append(time(functools.partial(run, candidate)))
        except (RuntimeError, ValueError):  # too much shared memory, say
            times.append(float("inf"))
    best = candidates[times.index(min(times))]
    write(file, {**read(file), key: best})
    return best


def time_on_gpu(run: Callable[[], None]) -> float:
    """Milliseconds, the median of repeated launches."""
    from triton.testing import do_bench

    return do_bench(run, return_mode="median")


def conditions(like: Tensor) -> str:
    """What a measurement depends on: the graphics card and the versions."""
    import triton

    return f"{torch.cuda.get_device_name(like.device)} torch {torch.__version__} triton {triton.__version__}"


def cache_file(conditions: str) -> Path:
    """Where the measurements under these conditions are kept."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torchfromscratch"
    return folder / f"{''.join(sign if sign.isalnum() else '-' for sign in conditions)}.json"


def read(file: Path) -> dict[str, Configuration]:
    """What was measured before; nothing, if the file is not there or was written halfway.

    Every launch asks, so a file is read again only when it has become another.
    """
    try:
        state = file.stat()
        return _parse(file, state.st_ino, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):
        return {}


@functools.lru_cache(maxsize=8)
def _parse(file: Path, *state: int) -> dict[str, Configuration]:
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, measured: dict[str, Configuration]) -> None:
    """Keeps it whole or not at all; a folder that cannot be written to keeps nothing."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(measured, indent=1), encoding="utf-8")
        part.replace(file)
    except OSError:
        return
