"""Several processes that train one model together, started by torchrun; or just this one.

Whatever happens, happens on all of them: an error or a signal on one process reaches the others at
the next exchange, so none is left waiting for a partner that has gone.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from torchfromscratch.training.errors import PeerLost, UserError

T = TypeVar("T")

DEVICES = ("cuda", "mps", "cpu")
LAUNCHER = os.getppid()  # as long as it lives


@dataclass(frozen=True)
class Group:
    """The processes of this training; a group of one needs no torch.distributed.

    Attributes:
        rank: this process's number, 0 for the main one, which alone logs and saves.
        size: how many processes there are.
        local_rank: this process's number on its machine, which is also its GPU's.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, whole: torch.Tensor) -> torch.Tensor:
        """This process's part of `whole`, cut along the first dimension into parts equal to one element."""
        return whole.tensor_split(self.size)[self.rank]

    def agree(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of the processes' tensors, on the device where they lie; the tensor itself stays as it is."""
        summed = tensor.clone()
        if self.size > 1:
            dist.all_reduce(summed)
        return summed

    def take_from_main(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives every process the main one's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def on_main(self, work: Callable[[], T]) -> T:
        """Does the work on the main process; every process gets its result, or raises its UserError."""
        outcome: list[Any] = [_attempt(work) if self.is_main else None]
        if self.size > 1:
            dist.broadcast_object_list(outcome, src=0)
        return _result(outcome[0])

    def on_each(self, work: Callable[[], T]) -> T:
        """Does the work on every process, first on one of each machine; all raise the UserError of any."""
        outcome = _attempt(work) if self.local_rank == 0 else None
        if self.size > 1:
            dist.barrier()
        result, error = outcome or _attempt(work)
        if errors := [error for error in self.gather(error) if error is not None]:
            raise UserError(errors[0])
        return result


ALONE = Group()

# Seconds in which gloo's threads let go of the last messages. They need the interpreter's lock for it, and the end of a
# group, which waits for the threads, holds that lock: in torch 2.6 a process was seen to wait for ever. In torch 2.14
# one of two processes was aborted in 4 of 40 trials that ended at once, and in none of 64 that waited.
LAST_MESSAGES = 0.1


def leave_group() -> None:
    """Ends the group of processes that torch.distributed has, once the last messages are through."""
    time.sleep(LAST_MESSAGES)
    dist.destroy_process_group()


@contextmanager
def process_group() -> Iterator[Group]:
    """The group that torchrun started this process in, or a group of this process alone.

    Messages between the processes go through gloo, gradients on GPUs through NCCL.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    try:
        _join()
        yield Group(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    except RuntimeError as error:
        if not _tells_of_a_lost_connection(error):
            raise
        who = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
        raise PeerLost(f"{who} stops: another process of this training has ended or cannot be reached") from error
    finally:
        if dist.is_initialized():
            leave_group()


def _join() -> None:
    """Meets the other processes where torchrun says."""
    store, rank, size = next(dist.rendezvous("env://"))
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # torchrun keeps one store for all its restarts, so that a process could find the address of one that is gone.
        # Each machine counts its restarts for itself, so the numbers of several may differ.
        store = dist.PrefixStore(f"restart {_restarts()}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def launch() -> str:
    """What all processes of one torchrun on this machine share, those that it starts again included; else nothing."""
    if not dist.is_torchelastic_launched():
        return ""
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {socket.gethostname()} {LAUNCHER}"


def is_restarted() -> bool:
    """Whether torchrun started this process in the place of one that failed."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def launcher_is_gone() -> bool:
    """Whether the torchrun that started this process was killed, so that nobody watches over the processes."""
    return dist.is_torchelastic_launched() and os.getppid() != LAUNCHER


def choose_device(asked: str, local_rank: int = 0) -> torch.device:
    """The device that `--device` asks for: "auto" prefers CUDA, then MPS, then the CPU.

    Raises:
        UserError: if the device is not there; the message names what is.
    """
    available = (torch.cuda.is_available(), torch.backends.mps.is_available(), True)
    present = dict(zip(DEVICES, available, strict=True))
    name = next(name for name in present if present[name]) if asked == "auto" else asked
    if not present[name]:
        usable = " or ".join(f"--device {other}" for other in present if present[other])
        raise UserError(
            f"--device {name}: PyTorch {torch.__version__} finds no {name} device here; use {usable} "
            "(or --device auto for the best one there is)"
        )
    if name != "cuda":
        return torch.device(name)
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this machine has no GPU of its own: there are "
            f"{torch.cuda.device_count()}; start at most that many processes, or use --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def amp_dtype(device: torch.device) -> torch.dtype:
    """The type of mixed precision: bfloat16, but float16 on a GPU that has no products of bfloat16.

    Gradients in float16 want a scale, which torch's GradScaler waits for the device to choose, at every step.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _attempt(work: Callable[[], T]) -> tuple[Any, str | None]:
    try:
        return work(), None
    except (UserError, OSError) as error:
        return None, str(error)


def _result(outcome: tuple[Any, str | None]) -> Any:
    result, error = outcome
    if error is not None:
        raise UserError(error)
    return result


def _tells_of_a_lost_connection(error: RuntimeError) -> bool:
    # gloo's errors are plain RuntimeErrors, told apart by their text alone.
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("gloo", "Gloo", "Connection ", "NCCL")
    )
