"""Resizing: sizes and factors at random against torch, and the same errors for the same bad options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchfromscratch.functional as F
from tests import lacks
from tests.subjects import answers, random_tensors
from torchfromscratch.kernels import blocking, resampling

LACKS_LANCZOS = lacks.lanczos()
MODES = {
    1: ["nearest", "nearest-exact", "linear", "area"],
    2: ["nearest", "nearest-exact", "bilinear", "bicubic", "area", *["lanczos"] * (not LACKS_LANCZOS)],
    3: ["nearest", "nearest-exact", "trilinear", "area"],
}
SMOOTH = ["linear", "bilinear", "trilinear", "bicubic", "lanczos"]


@st.composite
def resizings(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    """The spatial size of an input and options for it."""
    dims = draw(st.sampled_from([*MODES]))
    size = draw(st.lists(st.integers(1, 9), min_size=dims, max_size=dims))
    mode = draw(st.sampled_from(MODES[dims]))
    options: dict[str, Any] = {"mode": mode}
    if draw(st.booleans()):
        options["size"] = draw(st.lists(st.integers(1, 20), min_size=dims, max_size=dims))
    else:
        factors = [st.floats(1 / length, 3, allow_subnormal=False) for length in size]
        options["scale_factor"] = [draw(factor) for factor in factors]
        options["recompute_scale_factor"] = draw(st.sampled_from([None, False, True]))
    if mode in SMOOTH and mode != "lanczos":
        options["align_corners"] = draw(st.sampled_from([None, False, True]))
    if mode == "lanczos" or (mode in ("bilinear", "bicubic") and draw(st.booleans())):
        options["antialias"] = True
    return size, options


@settings(max_examples=300, deadline=None)
@given(resizings(), st.booleans(), st.sampled_from([1, blocking.BATCH_BLOCK_BYTES]))
def test_equals_torch_for_any_options(resizing: tuple, channels_last: bool, chunk_bytes: int) -> None:
    """Also where a batch is taken in parts of one picture."""
    size, options = resizing
    input = torch.linspace(-1, 1, 2 * 3 * torch.Size(size).numel(), dtype=torch.float64).view(2, 3, *size)
    if channels_last and len(size) == 2:
        input = input.to(memory_format=torch.channels_last)
    results = []
    for functional in (F, torch.nn.functional):
        x = input.detach().clone().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocking, "BATCH_BLOCK_BYTES", chunk_bytes)
            output = functional.interpolate(x, **options)
            (gradient,) = torch.autograd.grad(output.square().sum(), x)
        results.append((output, gradient))
    (output, gradient), (torchs_output, torchs_gradient) = results
    if options.get("antialias") and 1 in (size[-1], output.shape[-1]):
        return  # of a picture one pixel wide torch reads the first row alone
    torch.testing.assert_close(output, torchs_output)
    assert output.stride() == torchs_output.stride()
    if not torchs_gradient_is_wrong(size, list(output.shape[2:]), options):
        torch.testing.assert_close(gradient, torchs_gradient)


def torchs_gradient_is_wrong(size: list[int], output_size: list[int], options: dict[str, Any]) -> bool:
    """Where torch leaves the scale factor out of account in one direction alone.

    Against aliasing it does so forward where there are as many outputs as inputs; backward for bicubic pictures that
    keep their size, and to the nearest of signals and volumes where there are as many or twice as many: by a factor
    of 1.25 two inputs are x[0], x[0], but backward x[0], x[1].
    """
    if options.get("recompute_scale_factor") or "scale_factor" not in options:
        return False
    if options.get("antialias"):
        return any(o == i for i, o in zip(size, output_size, strict=True))
    if options["mode"] == "bicubic":
        return output_size == size
    nearest = options["mode"] == "nearest" and len(size) != 2
    return nearest and any(o in (i, 2 * i) for i, o in zip(size, output_size, strict=True))


def test_the_gradient_is_right_where_torchs_is_not() -> None:
    x = torch.ones(1, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: F.interpolate(x, scale_factor=1.25), x)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda x: torch.nn.functional.interpolate(x, scale_factor=1.25), x)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_nearest_is_torchs_for_every_size(mode: str, dtype: torch.dtype, dims: int) -> None:
    for inputs in range(1, 40, 3):
        x = torch.arange(inputs, dtype=dtype).view(*[1] * (dims + 1), inputs)
        for outputs in range(1, 100, 2):
            size = [*[1] * (dims - 1), outputs]
            ours, theirs = (f.interpolate(x, size, mode=mode) for f in (F, torch.nn.functional))
            if mode == "nearest-exact":  # of two that are equally near, torch takes now one, now the other
                tie = (2 * torch.arange(outputs) + 1) * inputs % (2 * outputs) == 0
                ours, theirs = ours[..., ~tie], theirs[..., ~tie]
            assert torch.equal(ours, theirs), (inputs, outputs)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bytes_are_torchs_to_one_step(mode: str, antialias: bool) -> None:
    """torch's weights of bytes are of few digits, so that it rounds some of them to a neighbour."""
    x = torch.randint(256, (2, 3, 17, 19), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in ((7, 9), (30, 40)):
        ours, theirs = (f.interpolate(x, size, mode=mode, antialias=antialias) for f in (F, torch.nn.functional))
        assert ours.dtype == torch.uint8
        assert (ours.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((1, 1, 4, 4), {}),
        ((1, 1, 4, 4), {"size": 2, "scale_factor": 2.0}),
        ((1, 1, 4, 4), {"size": (2, 2, 2)}),
        ((1, 1, 4, 4), {"size": 2.5}),
        ((1, 1, 4, 4), {"size": (2.5, 2)}),
        ((1, 1, 4, 4), {"size": 0}),
        ((1, 1, 4, 4), {"size": (2, -1), "mode": "bilinear"}),
        ((1, 1, 4, 4), {"scale_factor": (2.0,)}),
        ((1, 1, 4, 4), {"scale_factor": 0.1}),
        ((1, 1, 4, 4), {"size": 2, "mode": "linear"}),
        ((1, 1, 4, 4), {"size": 2, "mode": "trilinear"}),
        ((1, 1, 4), {"size": 2, "mode": "bicubic"}),
        ((1, 1, 4), {"size": 2, "mode": "bilinear"}),
        ((1, 1, 4, 4), {"size": 2, "mode": "sharp"}),
        ((4, 4), {"size": ()}),
        ((1, 1, 2, 2, 2, 2), {"size": 2}),
        ((1, 0, 4, 4), {"size": 2}),
        ((1, 1, 4, 4), {"size": 2, "align_corners": True}),
        ((1, 1, 4, 4), {"size": 2, "recompute_scale_factor": True}),
        ((1, 1, 4, 4), {"size": 2, "antialias": True}),
        ((1, 1, 4), {"size": 2, "mode": "linear", "antialias": True}),
        pytest.param((1, 1, 4, 4), {"size": 2, "mode": "lanczos"}, marks=lacks.marked(LACKS_LANCZOS)),
        pytest.param(
            (1, 1, 4, 4),
            {"size": 2, "mode": "lanczos", "antialias": True, "align_corners": True},
            marks=lacks.marked(LACKS_LANCZOS),
        ),
    ],
    ids=str,
)
def test_raises_what_torch_raises(size: tuple, options: dict) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError, NotImplementedError)) as theirs:
        torch.nn.functional.interpolate(torch.ones(size), **options)
    with pytest.raises(theirs.type):
        F.interpolate(torch.ones(size), **options)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_integers_other_than_bytes_have_no_means(mode: str) -> None:
    integers = torch.ones(1, 1, 4, 4, dtype=torch.int64)
    with pytest.raises(NotImplementedError):
        F.interpolate(integers, 2, mode=mode)
    with pytest.raises(lacks.unimplemented()):
        torch.nn.functional.interpolate(integers, 2, mode=mode)


@pytest.mark.parametrize("options", [{"align_corners": True}, {"antialias": True}], ids=str)
def test_weights_in_blocks(options: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the outputs, of which the last block is shorter."""

    def resized() -> list[torch.Tensor]:
        return answers(lambda x: F.interpolate(x, (11, 4), mode="bicubic", **options), random_tensors((1, 2, 7, 9)))

    whole = resized()
    monkeypatch.setattr(resampling, "BLOCK", 3)
    assert all(map(torch.equal, resized(), whole))
