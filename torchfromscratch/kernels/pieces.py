"""Long elementwise formulas piece by piece, so that what lies between two of their steps stays in the cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels.memory import is_differentiating, is_tracing, may_be_looked_at

# Elements for each thread: fewer cost more in calls than they save, and 2^18 are no faster. Over the whole of
# 2^20 float32, a formula of three steps takes up to 4 times as long: each step may fetch new memory from the system.
PIECE = 2**17

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def in_pieces(formula: Callable[..., Tensor], *args: Any) -> Tensor:
    """`formula(*args)`, a function of each element of its tensors and of constants."""
    given = [arg for arg in args if isinstance(arg, Tensor)]
    if is_differentiating() or not may_be_looked_at(*given):
        return formula(*args)
    numbers = [one_number(arg) if isinstance(arg, Tensor) else arg for arg in args]
    varying = [isinstance(number, Tensor) and number.dim() > 0 for number in numbers]
    tensors = list(itertools.compress(args, varying))
    pieces, output = pieces_of(tensors, PIECE) if tensors else [], None
    if len(pieces) <= 1:
        return formula(*args)
    start, first = 0, tensors[0]
    for piece in pieces:
        parts = iter(piece)
        pieces_and_numbers = [
            next(parts) if varies else number for number, varies in zip(numbers, varying, strict=True)
        ]
        result = formula(*pieces_and_numbers)
        count = piece[0].numel()
        if output is None:
            output = torch.empty_strided(first.shape, first.stride(), dtype=result.dtype)
        flat(output)[start : start + count] = result
        del result  # whose memory the next piece takes, while the cache holds it
        start += count
    assert output is not None
    return output


def one_number(tensor: Tensor) -> Tensor:
    """Of a tensor that repeats one number, as a sum's gradient does: that number; others as they are."""
    repeats = all([size == 1 or stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)])
    return tensor[(0,) * tensor.dim()] if repeats and tensor.numel() > 1 else tensor


def pieces_of(tensors: list[Tensor], for_each_thread: int) -> list[Sequence[Tensor]]:
    """Pieces of the tensors, one of each at a time; the tensors whole where they are short or no plain memory."""
    if is_tracing():
        return [tensors]
    step = for_each_thread * torch.get_num_threads()
    if tensors[0].numel() <= step or not _are_plain_memory(tensors):
        return [tensors]
    return list(zip(*[flat(tensor).split(step) for tensor in tensors], strict=True))


def flat(tensor: Tensor) -> Tensor:
    """All elements of a tensor without gaps, in the order in which they lie."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _are_plain_memory(tensors: list[Tensor]) -> bool:
    """Whether the elements of one lie as those of the others, without gaps, and nothing follows what is computed."""
    first = tensors[0]
    lies = first.is_contiguous() or (first.dim() in LAYOUTS and first.is_contiguous(memory_format=LAYOUTS[first.dim()]))
    return (
        not is_differentiating()
        and lies
        and may_be_looked_at(*tensors)
        and all([(t.shape, t.stride()) == (first.shape, first.stride()) for t in tensors])
        and not any([t.is_conj() or t.is_neg() for t in tensors])
    )
