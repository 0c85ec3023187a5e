"""A run has its directory to itself, and only a run that is there can be gone on with."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.training.conftest import DEFAULT_NAME, TINY
from torchfromscratch.training import checkpoint, cli, distributed, lock, runs
from torchfromscratch.training.cli import main
from torchfromscratch.training.errors import UserError

Failing = Callable[..., str]

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main([*TINY, "--epochs", "1", "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def run(finished: Path, in_directory: Path) -> Path:
    """A copy of a finished run, in runs/."""
    return Path(shutil.copytree(finished, "runs/older"))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("arguments", [["--resume", "--name", "older"], ["--resume"]], ids=" ".join)
def test_going_on_beside_a_live_run_is_refused_by_process_id(arguments: list[str], failing: Failing, run: Path) -> None:
    with lock.directory_lock(run):
        before = contents(run)
        assert f"process {os.getpid()} is training in runs/older now" in failing(*arguments)
        assert contents(run) == before
    assert main(arguments) == 0
    assert not (run / lock.LOCK).exists()


def test_a_new_run_in_the_directory_of_a_live_one_is_refused(failing: Failing, in_directory: Path) -> None:
    Path("runs/new").mkdir(parents=True)
    with lock.directory_lock(Path("runs/new")):
        assert f"process {os.getpid()} is training" in failing(*TINY, "--name", "new")


def test_new_runs_without_a_name_each_take_their_own_directory(in_directory: Path) -> None:
    with ExitStack() as held:
        taken = [runs.new_run({"dataset": "digits"}, None, held).directory for _ in range(3)]
        assert [path.name for path in taken] == [DEFAULT_NAME, f"{DEFAULT_NAME}-2", f"{DEFAULT_NAME}-3"]
    assert not list(Path("runs").iterdir()), "runs that never began left their directories behind"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with lock.directory_lock(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with lock.directory_lock(tmp_path):
        assert (tmp_path / lock.LOCK).read_text().split()[0] == str(os.getpid())


def test_a_lock_file_that_vanishes_while_it_is_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = lock._lock, []

    def after_its_holder_left(file: int) -> None:
        if not taken:
            (tmp_path / lock.LOCK).unlink()
        taken.append(file)
        take(file)

    monkeypatch.setattr(lock, "_lock", after_its_holder_left)
    with lock.directory_lock(tmp_path), pytest.raises(lock.Held), lock.directory_lock(tmp_path):
        pass
    assert len(taken) == 3


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(file: int) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", no_locks)
    with lock.directory_lock(tmp_path):
        assert "knows no locks" in capsys.readouterr().err


def test_unfinished_files_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace = tmp_path / "last.pt", os.replace

    def while_another_writes(*arguments: Path) -> None:
        monkeypatch.setattr(checkpoint.os, "replace", replace)
        checkpoint.write_atomically(path, b"another's")
        replace(*arguments)

    monkeypatch.setattr(checkpoint.os, "replace", while_another_writes)
    checkpoint.write_atomically(path, b"mine")
    assert contents(tmp_path) == {"last.pt": b"mine"}


def test_what_a_killed_process_was_writing_is_removed_by_the_next(run: Path) -> None:
    (run / ".last.pt.0123.unfinished").write_bytes(b"half a check")
    assert main(["--resume"]) == 0
    assert not list(run.glob(".*"))


def test_a_directory_left_by_a_run_killed_before_its_first_checkpoint_is_taken(in_directory: Path) -> None:
    left = Path("runs") / DEFAULT_NAME
    left.mkdir(parents=True)
    (left / lock.LOCK).write_text("1 nowhere")
    (left / ".last.pt.0123.unfinished").touch()
    with ExitStack() as held:
        assert runs.new_run({"dataset": "digits"}, None, held).directory == left
        assert [path.name for path in left.iterdir()] == [lock.LOCK]


@pytest.mark.parametrize(
    "place", [["--name", "tpyo"], ["--run-dir", "tpyo"], ["--run-dir", "."], ["--seed", "9"]], ids=" ".join
)
def test_going_on_with_what_is_not_there_lists_the_runs_that_are(
    place: list[str], failing: Failing, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, "runs/newer")
    os.utime("runs/older/last.pt", (1, 1))
    monkeypatch.setattr(cli, "load_dataset", None)  # nobody may ask for a data set
    before = sorted(Path().rglob("*"))
    message = failing("--resume", *place)
    assert "there is no run in" in message
    assert "latest first: newer, older" in message
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("arguments", [[], ["--name", "x"], ["--run-dir", "x"]], ids=" ".join)
def test_going_on_where_there_is_no_run_at_all(arguments: list[str], failing: Failing, in_directory: Path) -> None:
    assert "holds no run: start one without --resume" in failing("--resume", *arguments)
    assert not list(in_directory.iterdir())


@pytest.mark.parametrize("arguments", [["--resume"], []], ids=["going on", "a new run"])
@pytest.mark.parametrize("kept", ["best.pt", "metrics.jsonl", "events"])
def test_without_its_last_checkpoint_a_run_s_files_are_left_alone(
    kept: str, arguments: list[str], failing: Failing, run: Path
) -> None:
    for path in run.iterdir():
        if kept not in path.name:
            path.unlink()
    before = contents(run)
    assert len(before) == 1
    message = failing(*TINY, *arguments, "--run-dir", run)
    if arguments and kept == "best.pt":
        assert f"{run / 'best.pt'} is whole and holds epoch 1: copy it to {run / 'last.pt'}" in message
    assert contents(run) == before


def test_a_damaged_newest_run_does_not_block_the_others(failing: Failing, run: Path) -> None:
    newer = Path(shutil.copytree(run, "runs/newer"))
    (newer / "last.pt").write_bytes(b"")
    message = failing("--resume")
    assert "runs/newer/last.pt is damaged" in message
    assert "--resume --name older" in message
    assert main(["--resume", "--name", "older"]) == 0


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def be(restart: int = 0, identity: str = "a", launcher: int = os.getppid()) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", identity)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restart))
        monkeypatch.setattr(distributed, "LAUNCHER", launcher)

    return be


def chosen(directory: Path | None, held: ExitStack, **given: object) -> runs.Run:
    return runs.choose_run({"dataset": "digits", **given}, directory, resume=False, held=held)


@pytest.mark.parametrize("named", [True, False])
def test_started_again_by_torchrun_a_run_goes_on(
    named: bool, under_torchrun: Callable[..., None], in_directory: Path
) -> None:
    name = "mine" if named else DEFAULT_NAME
    under_torchrun(identity="another")
    with ExitStack() as held:
        trained(chosen(Path("runs/other"), held))
    under_torchrun()
    with ExitStack() as held:
        trained(chosen(Path("runs/mine") if named else None, held))
    os.utime(f"runs/{name}/last.pt", (1, 1))  # the other run is the newer one
    under_torchrun(restart=1)
    with ExitStack() as held:
        again = chosen(Path("runs/mine") if named else None, held)
    assert again.directory == Path("runs") / name
    assert again.checkpoint is not None


def test_started_again_by_torchrun_a_run_leaves_others_alone(
    under_torchrun: Callable[..., None], in_directory: Path
) -> None:
    with ExitStack() as held:
        trained(chosen(Path("runs/mine"), held))
    under_torchrun(restart=1)
    with ExitStack() as held, pytest.raises(UserError, match="already holds a run"):
        chosen(Path("runs/mine"), held)
    with ExitStack() as held:
        assert chosen(None, held).directory == Path("runs") / DEFAULT_NAME


def trained(run: runs.Run) -> None:
    """Has a run write its first checkpoint."""
    cli._build_trainer(run, distributed.ALONE).save()


def test_workers_whose_launcher_was_killed_save_and_stop(
    under_torchrun: Callable[..., None], in_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_torchrun(launcher=1 + os.getppid())
    assert distributed.launcher_is_gone()
    with ExitStack() as held:
        trainer = cli._build_trainer(chosen(Path("runs/mine"), held), distributed.ALONE)
        with pytest.raises(cli.Interrupted) as stopped:
            trainer.fit()
    assert stopped.value.signal == signal.SIGTERM
    assert checkpoint.load_checkpoint(Path("runs/mine/last.pt"))["position"]["batch"] == 1
