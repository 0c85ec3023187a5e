"""The training with layers from scratch: as torch's own, and with none of them."""

from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

import torchfromscratch
from tests.training.conftest import TINY
from torchfromscratch.training.cli import main


def rows(run: Path) -> list[dict[str, float]]:
    return torch.load(run / "last.pt", weights_only=True)["rows"]


def test_curves_from_scratch_are_those_of_torch(in_directory: Path) -> None:
    for layers in ("scratch", "torch"):
        assert main([*TINY, "--layers", layers, "--name", layers]) == 0
    for scratch, built_in in zip(rows(Path("runs/scratch")), rows(Path("runs/torch")), strict=True):
        # Sums in another order: 45 steps let a rounding of 1e-7 grow to about 1e-5 of the loss.
        for metric in ("train_loss", "test_loss"):
            assert scratch[metric] == pytest.approx(built_in[metric], rel=1e-4)


def test_no_built_in_layer_runs_in_a_whole_training(in_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is drawn by torch.jit's tracer, which breaks under any dispatch mode, as the audit is one.
    monkeypatch.setattr(SummaryWriter, "add_graph", lambda *arguments: None)
    with torchfromscratch.audit():
        assert main([*TINY, "--epochs", "1"]) == 0


def test_the_audit_would_have_noticed(in_directory: Path) -> None:
    with pytest.raises(torchfromscratch.BuiltinLayerError), torchfromscratch.audit():
        main([*TINY, "--epochs", "1", "--layers", "torch"])
