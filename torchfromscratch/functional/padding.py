"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchfromscratch.autograd import padding
from torchfromscratch.functional.arguments import require_memory
from torchfromscratch.functional.autocast import autocast

__all__ = ["pad"]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`input` in a frame: of a constant, or of what lies on its own edges.

        constant    v v | a b c d | v v        value v, 0 if None
        reflect     c b | a b c d | c b
        replicate   a a | a b c d | d d
        circular    c d | a b c d | a b

    An element of the frame sends its gradient back to the element that it repeats. A negative width crops.

    Shapes: `pad` = (left, right, top, bottom, front, back) begins with the last dimension. 'constant' takes
    any number of dimensions; the others pad the last 1, 2 or 3 dimensions of an input that has one
    (unbatched) or two more.

    Raises RuntimeError for an odd number of widths, an edge wider than what it repeats, an empty input or
    output, and a value where there is no constant; NotImplementedError for another mode or number of
    dimensions.

    Source: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016, for zeros.
    """
    if mode not in ("constant", *padding.MODES):
        raise NotImplementedError(f"unknown padding mode {mode!r}: there are 'constant' and {[*padding.MODES]}")
    if len(pad) % 2:
        raise RuntimeError(f"pad needs two widths for each dimension, but got {len(pad)}: {tuple(pad)}")
    if len(pad) > 2 * input.dim():
        raise RuntimeError(f"pad has widths for {len(pad) // 2} dimensions, but the input has {input.dim()}")
    if mode == "constant":
        return padding.pad_constant(input, tuple(pad), 0 if value is None else value)
    if value:
        raise RuntimeError(f"padding mode {mode!r} takes no value, but got {value}")
    if len(pad) not in (2, 4, 6) or input.dim() - len(pad) // 2 not in (1, 2):
        raise NotImplementedError(
            f"padding mode {mode!r} pads the last 1, 2 or 3 dimensions of an input that has one or two more, "
            f"but got {len(pad)} widths and a {input.dim()}-dimensional input"
        )
    # torch's list of what CPU autocast runs in float32 has all but these
    as_given = mode == "circular" or (mode == "reflect" and len(pad) == 6)
    return _pad_edges(input, pad, mode) if as_given else _pad_edges_in_float32(input, pad, mode)


def _pad_edges(input: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    crop = [min(width, 0) for width in pad]
    if mode == "circular":  # repeats what is left after cropping, and answers contiguous in torch
        input = _crop(input, crop).contiguous()
    widths = [(max(pad[i], 0), max(pad[i + 1], 0)) for i in range(len(pad) - 2, -1, -2)]
    _check_widths(input, widths, mode)
    padded = [size + sum(edges) for size, edges in zip(input.shape[-len(widths) :], widths, strict=True)]
    require_memory((*input.shape[: -len(widths)], *padded), input)
    output = padding.pad_edges(input, widths, mode)
    if mode == "circular":
        return output
    output = _crop(output, crop)
    if 0 in output.shape[-len(widths) :]:
        raise RuntimeError(f"pad {tuple(pad)} leaves nothing of an input of size {tuple(input.shape)}")
    return output


_pad_edges_in_float32 = autocast(cpu="float32", cuda="as given")(_pad_edges)


def _crop(input: Tensor, crop: Sequence[int]) -> Tensor:
    return padding.pad_constant(input, tuple(crop), 0) if any(crop) else input


def _check_widths(input: Tensor, widths: padding.Widths, mode: str) -> None:
    sizes = input.shape[-len(widths) :]
    if mode != "circular" and 0 in input.shape[-len(widths) - 1 :]:
        raise RuntimeError(
            f"padding mode {mode!r} needs an input with at most the batch empty, got {tuple(input.shape)}"
        )
    for size, edges in zip(sizes, widths, strict=True):
        largest = {"reflect": size - 1, "circular": size}.get(mode, max(edges))
        if max(edges) > largest:
            raise RuntimeError(
                f"padding mode {mode!r} can repeat at most {largest} elements of a dimension of size {size}, "
                f"but got widths {edges} for an input of size {tuple(input.shape)}"
            )
