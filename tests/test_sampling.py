"""Sampling at the places of a grid: far outside, at the edges, and what is no number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch
import torchfromscratch.functional as F
from tests.subjects import assert_as_torch, random_tensors

MODES = [
    (mode, dims) for dims in (2, 3) for mode in ("bilinear", "nearest", "bicubic") if (mode, dims) != ("bicubic", 3)
]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(("mode", "dims"), MODES, ids=str)
@pytest.mark.parametrize("reach", [1.0, 8.0], ids=["near", "far"])
def test_equals_torchs_near_and_far(mode: str, dims: int, padding: str, align_corners: bool, reach: float) -> None:
    """Of few channels and of many, and an axis of one pixel."""
    options = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
    for shape in ((2, 2, 3, 4, 2), (2, 9, 1, 3, 4)):
        input, grid = random_tensors((*shape[:2], *shape[-dims:]), (2, *(4, 3, 2)[:dims], dims))
        grid = (grid.detach() * reach).requires_grad_()
        assert_as_torch("grid_sample", (input, grid), options)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_places_on_pixels_and_between_two(mode: str, padding: str, align_corners: bool) -> None:
    """Where a choice is made: at pixels, half-way, and at both ends of the axes."""
    options = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
    (input,) = random_tensors((1, 2, 4, 4))
    steps = torch.arange(-8, 9, dtype=torch.float64) / 4
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).unsqueeze(0).requires_grad_()
    assert_as_torch("grid_sample", (input, grid), options)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_places_that_are_no_numbers(mode: str, padding: str) -> None:
    input = torch.randn(1, 1, 3, 4)
    wrong = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])
    grid = torch.stack([wrong, torch.zeros(4)], -1).view(1, 1, 4, 2)
    ours, theirs = (
        library.grid_sample(input, grid, mode, padding, align_corners=False) for library in (F, torch.nn.functional)
    )
    torch.testing.assert_close(ours[..., :3], theirs[..., :3], equal_nan=True)
    assert ours[..., 3].isfinite().all()


@pytest.mark.parametrize(
    ("input", "grid", "options"),
    [
        ((1, 2, 4, 5), (1, 3, 3, 1), {}),
        ((1, 2, 4, 5), (2, 3, 3, 2), {}),
        ((2, 4, 5), (1, 3, 3, 2), {}),
        ((1, 2, 0, 5), (1, 3, 3, 2), {}),
        ((1, 2, 4, 5), (1, 3, 2), {}),
        ((1, 2, 4, 5), (1, 1, 3, 3, 3), {}),
        ((1, 2, 3, 4, 5), (1, 1, 3, 3, 3), {"mode": "bicubic"}),
        ((1, 2, 4, 5), (1, 3, 3, 2), {"mode": "trilinear"}),
        ((1, 2, 4, 5), (1, 3, 3, 2), {"padding_mode": "circular"}),
        ((0, 2, 4, 5), (0, 3, 3, 2), {}),
        ((1, 0, 4, 5), (1, 3, 3, 2), {}),
        ((1, 2, 4, 5), (1, 0, 3, 2), {}),
    ],
    ids=str,
)
def test_raises_what_torch_raises(input: Sequence[int], grid: Sequence[int], options: dict[str, Any]) -> None:
    assert_as_torch("grid_sample", random_tensors(input, grid), {"align_corners": False, **options})


def test_types_must_agree() -> None:
    for library in (F, torch.nn.functional):
        with pytest.raises(RuntimeError, match="scalar type"):
            library.grid_sample(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, 2).double(), align_corners=False)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(2, 1, 3, 1), (2, 1, 2, 3, 4)], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_affine_grid_equals_torchs(size: tuple[int, ...], align_corners: bool) -> None:
    dims = len(size) - 2
    thetas = random_tensors((2, dims, dims + 1))
    assert_as_torch("affine_grid", thetas, {"size": size, "align_corners": align_corners})


@pytest.mark.parametrize(
    ("theta", "size"),
    [
        (torch.ones(1, 2, 3).long(), (1, 1, 2, 2)),
        (torch.ones(1, 2, 3), (1, 1, 2)),
        (torch.ones(1, 2, 3), (1, 1, 2, 2, 2)),
        (torch.ones(2, 3), (1, 1, 2, 2)),
        (torch.ones(1, 2, 3), (1, 1, 0, 2)),
        (torch.ones(2, 2, 3), (1, 1, 2, 2)),
    ],
    ids=str,
)
def test_affine_grid_raises_what_torch_raises(theta: Tensor, size: tuple[int, ...]) -> None:
    assert_as_torch("affine_grid", [theta], {"size": size, "align_corners": False})


def test_says_what_is_meant_where_nothing_is_said() -> None:
    picture, grid, theta = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 2), torch.ones(1, 2, 3)
    for call in (lambda: F.grid_sample(picture, grid), lambda: F.affine_grid(theta, (1, 1, 2, 2))):
        with pytest.warns(UserWarning, match="align_corners=False"):
            call()


def test_torchs_own_names_run_by_hand() -> None:
    input, grid = random_tensors((1, 2, 4, 5), (1, 3, 3, 2))
    expected = torch.grid_sampler(input, grid, 2, 1, True)
    with torchfromscratch.audit(), torchfromscratch.from_scratch():
        ours = [torch.grid_sampler(input, grid, 2, 1, True), torch.grid_sampler_2d(input, grid, 2, 1, True)]
        torch.affine_grid_generator(torch.ones(1, 2, 3), [1, 1, 2, 2], False)
    torch.testing.assert_close(ours, [expected, expected])
