"""Batch norm over two processes equals that of one with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

import torchfromscratch
from torchfromscratch import nn
from torchfromscratch.training.distributed import leave_group

SHARES = ((slice(0, 2), slice(2, 5)), (slice(0, 5), slice(5, 5)))  # of five samples, to each process


def batch() -> Tensor:
    return torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def step(module: Any, x: Tensor, part: slice) -> list[Tensor]:
    """Output, gradients of both orders and buffers, of a part of the batch."""
    x = x[part].clone().requires_grad_()
    y = module(x)
    weights = torch.arange(5 * 12, dtype=torch.float64).view(5, 3, 2, 2).cos()[part]
    gradients = torch.autograd.grad((y * y * weights).sum(), [x, module.weight, module.bias], create_graph=True)
    (second,) = torch.autograd.grad((gradients[0] * weights).sum(), x)
    return [t.detach() for t in (y, *gradients, second, *module.buffers())]


def module(kind: Any, momentum: float | None) -> torch.nn.Module:
    built = kind(3, momentum=momentum).double()
    with torch.no_grad():
        built.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        built.bias.copy_(torch.tensor([1.0, 0.0, 3.0]))
    return built


def one_of_two(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting-point", rank=rank, world_size=2)
    for number, share in enumerate(SHARES):
        for momentum in (0.1, None):
            with torchfromscratch.audit():
                found = step(module(nn.SyncBatchNorm, momentum), batch(), share[rank])
            torch.save(found, f"{directory}/{number} {momentum} {rank}")
    leave_group()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(one_of_two, args=(str(path),), nprocs=2)
    return path


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("number", range(len(SHARES)), ids=["two and three", "all and none"])
def test_two_processes_equal_one(directory: Path, number: int, momentum: float | None) -> None:
    first, second = (torch.load(directory / f"{number} {momentum} {rank}") for rank in (0, 1))
    alone = step(module(torch.nn.BatchNorm2d, momentum), batch(), slice(0, 5))
    y, grad_x, grad_weight, grad_bias, grad_second, *buffers = alone
    for position, whole in ((0, y), (1, grad_x), (4, grad_second)):
        torch.testing.assert_close(torch.cat([first[position], second[position]]), whole)
    torch.testing.assert_close([first[2] + second[2], first[3] + second[3]], [grad_weight, grad_bias])
    torch.testing.assert_close([first[5:], second[5:]], [buffers, buffers])


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_batch_norm(training: bool) -> None:
    ours, theirs = (module(kind, 0.1).train(training) for kind in (nn.SyncBatchNorm, torch.nn.BatchNorm2d))
    torch.testing.assert_close(ours(batch()), theirs(batch()))
    torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()))


def test_convert_sync_batchnorm_shares_what_it_converts() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3)))
    weight, mean = network[1][0].weight, network[1][0].running_mean
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert type(converted[1][0]) is nn.SyncBatchNorm
    assert converted[1][0].weight is weight
    assert converted[1][0].running_mean is mean
    assert type(torchfromscratch.convert(torch.nn.SyncBatchNorm(3))) is nn.SyncBatchNorm
