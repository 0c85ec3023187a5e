"""What torch.nn's attention modules do inside from_scratch() that they leave to built-in kernels outside.

Evaluated without gradients, they take nested tensors, and `TransformerEncoder` packs the sequences of a padded batch
and gives zeros for the padding. In any TorchFunctionMode they do neither, as they ask whether one is on before they
call those kernels. A mode sees functions and no modules: so these modules have another `forward` while ours is on.
What torch.compile traces is not told of modes, and would call the kernels.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchfromscratch import _torch_private as private
from torchfromscratch import nn
from torchfromscratch.functional.override import CAN_TRACE_MODES
from torchfromscratch.kernels.execution import is_compiling
from torchfromscratch.nn.attention import zero_padding

__all__ = ["keep_fast_paths"]

Forward = Callable[..., Any]

_BY_HAND: dict[Any, Any] = {
    torch.nn.MultiheadAttention: nn.MultiheadAttention,
    torch.nn.TransformerEncoderLayer: nn.TransformerEncoderLayer,
}
_originals: dict[Any, Forward] = {}
_lock = threading.Lock()
_users = 0


@contextmanager
def keep_fast_paths(mode: type[TorchFunctionMode]) -> Iterator[None]:
    """Inside, those modules answer in a mode of this class as they do in none.

    So they do in the other threads meanwhile, where no such mode is on and nothing changes.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _replace_forwards(mode)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _restore_forwards()


def _replace_forwards(mode: type[TorchFunctionMode]) -> None:
    encoder: Any = torch.nn.TransformerEncoder
    for module in (*_BY_HAND, encoder):
        _originals[module] = module.forward
    for module, ours in _BY_HAND.items():
        module.forward = _without_mode_if_nested(mode, _by_hand_if_compiled(module.forward, ours.forward))
    encoder.forward = _with_zero_padding(_without_mode_if_nested(mode, encoder.forward))


def _restore_forwards() -> None:
    while _originals:
        module, forward = _originals.popitem()
        module.forward = forward


def _without_mode_if_nested(mode: type[TorchFunctionMode], forward: Forward) -> Forward:
    @functools.wraps(forward)
    def forward_inside(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any([isinstance(value, Tensor) and value.is_nested for value in (*args, *kwargs.values())]):
            return forward(self, *args, **kwargs)
        with _without(mode):
            return forward(self, *args, **kwargs)

    return forward_inside


def _by_hand_if_compiled(forward: Forward, by_hand: Forward) -> Forward:
    @functools.wraps(forward)
    def forward_inside(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_compiling() and CAN_TRACE_MODES and private.is_torch_function_mode_enabled():
            return by_hand(self, *args, **kwargs)
        return forward(self, *args, **kwargs)

    return forward_inside


def _with_zero_padding(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def forward_inside(
        self: Any,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        output = forward(self, src, mask, src_key_padding_mask, is_causal)
        return zero_padding(self, output, src, mask, src_key_padding_mask)

    return forward_inside


@contextmanager
def _without(mode: type[TorchFunctionMode]) -> Iterator[None]:
    """Inside, the modes of this class are off, and all others on."""
    modes = private.function_modes()
    _replace_modes([m for m in modes if not isinstance(m, mode)])
    try:
        yield
    finally:
        _replace_modes(modes)


def _replace_modes(modes: list[TorchFunctionMode]) -> None:
    for _ in private.function_modes():
        private.pop_mode()
    for mode in modes:
        private.push_mode(mode)
