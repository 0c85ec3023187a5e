"""Long elementwise formulas piece by piece, so that what lies between two of their steps stays in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels.memory import followed, in_cpu_memory, is_recorded

# Elements for each thread: fewer cost more in calls than they save, and 2^18 are no faster. Over the whole of
# 2^20 float32, a formula of three steps takes up to 4 times as long: each step may fetch new memory from the system.
PIECE = 2**17

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def in_pieces(formula: Callable[..., Tensor], *args: Any) -> Tensor:
    """`formula(*args)`, a function of each element of its tensors and of constants."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    pieces, output = pieces_of(tensors), None
    if len(pieces) == 1:
        return formula(*args)
    start, first = 0, tensors[0]
    for piece in pieces:
        given = iter(piece)
        result = formula(*[next(given) if isinstance(arg, Tensor) else arg for arg in args])
        if output is None:
            output = torch.empty_strided(first.shape, first.stride(), dtype=result.dtype)
        flat(output)[start : start + result.numel()] = result
        start += result.numel()
    assert output is not None
    return output


def pieces_of(tensors: list[Tensor]) -> list[Sequence[Tensor]]:
    """Pieces of the tensors, one of each at a time; the tensors whole where they are short or no plain memory."""
    if is_recorded():
        return [tensors]
    step = PIECE * torch.get_num_threads()
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
        not followed()
        and lies
        and in_cpu_memory(*tensors)
        and all([type(t) in (Tensor, torch.nn.Parameter) for t in tensors])
        and all([(t.shape, t.stride()) == (first.shape, first.stride()) for t in tensors])
        and not any([t.is_conj() or t.is_neg() for t in tensors])
    )
