"""Long elementwise formulas piece by piece, so that what lies between two of their steps stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchfromscratch.kernels.memory import in_cpu_memory

# Elements for each thread: fewer cost more in calls than they save, and 2^18 are no faster. Over the whole of
# 2^20 float32, a formula of three steps takes up to 4 times as long: each step may fetch new memory from the system.
PIECE = 2**17

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def in_pieces(formula: Callable[..., Tensor], *args: Any) -> Tensor:
    """`formula(*args)`, a function of each element of its tensors and of constants."""
    if torch.compiler.is_compiling():
        return formula(*args)
    size = PIECE * torch.get_num_threads()
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    first = tensors[0]
    if first.numel() <= size or not _are_plain_memory(tensors):
        return formula(*args)
    flat = [arg.as_strided((arg.numel(),), (1,)) if isinstance(arg, Tensor) else arg for arg in args]
    output = None
    for start in range(0, first.numel(), size):
        stop = min(start + size, first.numel())
        piece = formula(*[arg[start:stop] if isinstance(arg, Tensor) else arg for arg in flat])
        if output is None:
            output = torch.empty_strided(first.shape, first.stride(), dtype=piece.dtype)
        output.as_strided((first.numel(),), (1,))[start:stop] = piece
    assert output is not None
    return output


def _are_plain_memory(tensors: list[Tensor]) -> bool:
    """Whether the elements of one lie as those of the others, without gaps, and nothing follows what is computed."""
    followed = (
        torch.is_grad_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )
    first = tensors[0]
    lies = first.is_contiguous() or (first.dim() in LAYOUTS and first.is_contiguous(memory_format=LAYOUTS[first.dim()]))
    return (
        not followed
        and lies
        and in_cpu_memory(*tensors)
        and all([type(t) in (Tensor, torch.nn.Parameter) for t in tensors])
        and all([(t.shape, t.stride()) == (first.shape, first.stride()) for t in tensors])
        and not any([t.is_conj() or t.is_neg() for t in tensors])
    )
