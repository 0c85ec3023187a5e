"""The table of finished runs says what their checkpoints say, and the picture has a curve for each."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.training.conftest import TINY, leave_out_pictures
from torchfromscratch.errors import UserError
from torchfromscratch.training.cli import main
from torchfromscratch.training.curves import LAYERS, picture, read_run, table

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds by hand, one with torch.nn."""
    root = tmp_path_factory.mktemp("runs")
    settings = [("scratch", 0), ("scratch", 1), ("torch", 0)]
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        for layers, seed in settings:
            arguments = [*TINY, "--epochs", "2", "--layers", layers, "--seed", str(seed)]
            assert main([*arguments, "--run-dir", str(root / f"{layers}-{seed}")]) == 0
    return [root / f"{layers}-{seed}" for layers, seed in settings]


def test_the_table_has_a_line_for_runs_that_differ_in_their_seeds(directories: list[Path]) -> None:
    rows = [torch.load(path / "last.pt", weights_only=True)["rows"] for path in directories]
    reached = [100 * of_run[-1]["test_accuracy"] for of_run in rows]
    _, _, scratch, built_in = table([read_run(path) for path in directories]).splitlines()
    mean = f"{(reached[0] + reached[1]) / 2:.2f} %"
    assert f"| digits | lenet5 | by hand | 2 | 0, 1 | {reached[0]:.2f}, {reached[1]:.2f} % | {mean} |" in scratch
    assert f"| digits | lenet5 | torch.nn | 2 | 0 | {reached[2]:.2f} % | {reached[2]:.2f} % |" in built_in
    assert f"{sum(row['seconds'] for row in rows[2]) / 60:.1f} | cpu, " in built_in


def test_the_picture_has_two_curves_for_each_run_that_end_where_it_ended(directories: list[Path]) -> None:
    runs = [read_run(path) for path in directories]
    root = ElementTree.fromstring(picture(runs).svg())
    curves = [line for line in root.iter(f"{SVG}polyline") if line.get("class") in ("arrow left", "arrow right")]
    assert len(curves) == 2 * len(runs)
    assert all(len(line.get("points").split()) == 2 for line in curves)
    ends = [float(line.get("points").split()[-1].split(",")[1]) for line in curves[: len(runs)]]
    by_height = sorted(range(len(runs)), key=lambda number: ends[number])
    assert [runs[n].accuracy for n in by_height] == sorted((run.accuracy for run in runs), reverse=True)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for layers, count in (("scratch", "mean of 2 runs"), ("torch", "1 run")):
        reached = [run.accuracy for run in runs if run.config["layers"] == layers]
        assert f"{LAYERS[layers]}: {100 * sum(reached) / len(reached):.2f} %, {count}" in texts


def test_runs_of_several_models_have_no_picture(directories: list[Path]) -> None:
    one, other = (read_run(path) for path in directories[:2])
    other = replace(other, config={**other.config, "model": "vit"})
    with pytest.raises(UserError, match="these runs are of lenet5 on digits, vit on digits"):
        picture([one, other])


def test_a_run_that_has_not_ended_is_refused(directories: list[Path], tmp_path: Path) -> None:
    state = torch.load(directories[0] / "last.pt", weights_only=True)
    state["config"]["epochs"] = 3
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(UserError, match=re.escape(f"the run in {tmp_path} is at epoch 2 of 3")):
        read_run(tmp_path)


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"there is no run in {tmp_path}. Give the directories of runs")):
        read_run(tmp_path)


def test_runs_of_different_settings_have_no_mean(directories: list[Path]) -> None:
    one, other = (read_run(path) for path in directories[:2])
    other = replace(other, config={**other.config, "crop_fill": "reflect"})
    assert "by hand: 2 runs of different settings" in picture([one, other]).svg()


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.99, 0.9995, 1.0])
def test_curves_stay_in_their_panels(accuracy: float, directories: list[Path]) -> None:
    run = read_run(directories[0])
    run = replace(run, rows=[{**row, "test_accuracy": accuracy, "train_loss": 0.0} for row in run.rows])
    root = ElementTree.fromstring(picture([run]).svg())
    heights: dict[bool, list[float]] = {True: [], False: []}  # of curves, of the lines at the ticks
    for line in root.iter(f"{SVG}polyline"):
        points = [point.split(",") for point in line.get("points", "").split()]
        heights[line.get("class") == "arrow left"] += [float(height) for _, height in points]
    assert min(heights[False]) <= min(heights[True])
    assert max(heights[True]) <= max(heights[False])
