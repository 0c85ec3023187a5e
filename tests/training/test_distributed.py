"""What one process runs into, all of them get to know."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from torchfromscratch.training.config import resolve
from torchfromscratch.training.data import Dataset, Pictures
from torchfromscratch.training.distributed import ALONE, Group, choose_device, leave_group, process_group
from torchfromscratch.training.errors import PeerLost, UserError
from torchfromscratch.training.trainer import Trainer


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


def one_of_two(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting-point", rank=rank, world_size=2)
    group = Group(rank, 2, rank)
    assert caught(lambda: group.on_each(lambda: fail(1, rank))) == "rank 1 has no data"
    assert caught(lambda: group.on_main(lambda: fail(0, rank))) == "rank 0 has no data"
    assert group.on_main(lambda: "from the main one") == "from the main one"
    assert group.agree(rank * 5) == 5
    assert group.gather(rank) == [0, 1]
    for model, batch_size in (("lenet5", 1), ("lenet5", 4), ("resnet18", 3)):
        torch.save(fitted(model, batch_size, group), f"{directory}/{model} {batch_size} {rank}")
    leave_group()


def fitted(model: str, batch_size: int, group: Group) -> list[float]:
    """What an epoch on nine pictures comes to, some of whose batches have less than two a process.

    Losses, accuracies and the norms of the running statistics that the network was tested with.
    """
    images = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pictures = Pictures(images, torch.arange(9) % 3)
    config = resolve({"dataset": "digits", "model": model, "batch_size": batch_size, "epochs": 1, "lr": 1e-3})
    with pytest.MonkeyPatch.context() as patch:  # what only the main process does is tested elsewhere
        for part in ("_write", "_open_logs", "_save_metrics"):
            patch.setattr(Trainer, part, lambda *arguments: None)
        cpu = torch.device("cpu")
        trainer = Trainer(config, Dataset(pictures, pictures, list("abc")), Path(), device=cpu, group=group)
        row = trainer.fit()
    metrics = [row[metric] for metric in ("train_loss", "test_loss", "train_accuracy", "test_accuracy")]
    return metrics + [buffer.double().norm().item() for buffer in trainer.model.buffers()]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes, which found all as it should be, left what they measured."""
    directory = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(one_of_two, (str(directory),), nprocs=2)
    return directory


def test_errors_and_results_reach_both_of_two_processes(two_processes: Path) -> None:
    assert two_processes.exists()


@pytest.mark.parametrize("run", ["lenet5 1", "lenet5 4", "resnet18 3"])
def test_a_batch_with_fewer_pictures_than_processes_need_trains_to_its_end(run: str, two_processes: Path) -> None:
    first, second = (torch.load(two_processes / f"{run} {rank}") for rank in (0, 1))
    assert first == second
    model, batch_size = run.split()
    if model == "lenet5":  # batch normalisation looks at each process's share alone
        assert first == pytest.approx(fitted(model, int(batch_size), ALONE), rel=1e-5)


def test_processes_test_with_the_same_running_statistics(two_processes: Path) -> None:
    first, second = (torch.load(two_processes / f"resnet18 3 {rank}") for rank in (0, 1))
    statistics = slice(4, None)  # behind the metrics
    assert len(first[statistics]) > 0
    assert first[statistics] == second[statistics]


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this process one that torchrun started, on this machine alone, for the first or for a further time."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]

    def be(restarts: int) -> None:
        ones = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), 1)
        zeros = dict.fromkeys(("RANK", "LOCAL_RANK"), 0)
        torchrun = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": restarts}
        for name, value in {**ones, **zeros, **torchrun, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))

    return be


LOST = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer"


@pytest.mark.parametrize("error", [RuntimeError(LOST), dist.DistNetworkError("x")], ids=["gloo", "store"])
@pytest.mark.parametrize("place", ["while meeting", "later"])
def test_a_lost_connection_is_told_in_one_line(
    place: str, error: RuntimeError, under_torchrun: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    under_torchrun(0)
    if place == "while meeting":
        monkeypatch.setattr(dist, "init_process_group", fail)
    with pytest.raises(PeerLost, match="process 0 of 1 stops: another process"), process_group():
        fail()
    assert not dist.is_initialized()


def test_a_mistake_of_the_code_is_no_lost_connection(under_torchrun: Callable[[int], None]) -> None:
    under_torchrun(0)
    with pytest.raises(RuntimeError, match="a mistake"), process_group():
        raise RuntimeError("a mistake of the code")


def test_processes_that_are_started_again_do_not_meet_those_that_are_gone(
    under_torchrun: Callable[[int], None],
) -> None:
    kept = []
    for restarts in (0, 1):
        under_torchrun(restarts)
        with process_group():
            store = dist.distributed_c10d._get_default_store()
            assert not store.check(["address"])
            store.set("address", "of this start")
            kept.append(store)  # and with it the server, as torchrun keeps it


def test_shares_of_a_batch_differ_by_one_at_most() -> None:
    shares = [Group(rank, 3).share(torch.arange(8)).tolist() for rank in range(3)]
    assert shares == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_the_cpu_is_there_whatever_else_is() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
