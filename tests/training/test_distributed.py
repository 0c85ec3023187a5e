"""What one process runs into, all of them get to know."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from torchfromscratch.training.distributed import Group, choose_device
from torchfromscratch.training.errors import UserError


def fail(on_rank: int, rank: int) -> str:
    if rank == on_rank:
        raise UserError(f"rank {rank} has no data")
    return "done"


def caught(work: Callable[[], object]) -> str:
    try:
        work()
    except UserError as error:
        return str(error)
    return "nothing"


def one_of_two(rank: int, address: str) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    group = Group(rank, 2, rank)
    assert caught(lambda: group.on_each(lambda: fail(1, rank))) == "rank 1 has no data"
    assert caught(lambda: group.on_main(lambda: fail(0, rank))) == "rank 0 has no data"
    assert group.on_main(lambda: "from the main one") == "from the main one"
    assert group.agree(rank * 5) == 5
    assert group.gather(rank) == [0, 1]
    dist.destroy_process_group()


def test_errors_and_results_reach_both_of_two_processes(tmp_path) -> None:
    multiprocessing.spawn(one_of_two, (f"file://{tmp_path}/meeting-point",), nprocs=2)


def test_shares_of_a_batch_differ_by_one_at_most() -> None:
    shares = [Group(rank, 3).share(torch.arange(8)).tolist() for rank in range(3)]
    assert shares == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_the_cpu_is_there_whatever_else_is() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
