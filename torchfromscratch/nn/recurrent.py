"""Recurrent modules: torch.nn's checks of a call, around the hand-written scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from torchfromscratch import _torch_private as private
from torchfromscratch import functional as F

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


class RNN(torch.nn.RNN):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh), or with ReLU: torch.nn.RNN by hand."""

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple:
        return _forward(self, F.rnn_tanh if self.mode == "RNN_TANH" else F.rnn_relu, input, hx)


class LSTM(torch.nn.LSTM):
    """Long short-term memory: torch.nn.LSTM by hand."""

    def forward(self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None) -> tuple:
        return _forward(self, F.lstm, input, hx)


class GRU(torch.nn.GRU):
    """Gated recurrent units: torch.nn.GRU by hand."""

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple:
        return _forward(self, F.gru, input, hx)


class RNNCell(torch.nn.RNNCell):
    """One step of an RNN: torch.nn.RNNCell by hand."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return _forward_cell(self, F.rnn_tanh_cell if self.nonlinearity == "tanh" else F.rnn_relu_cell, input, hx)


class LSTMCell(torch.nn.LSTMCell):
    """One step of an LSTM: torch.nn.LSTMCell by hand."""

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        return _forward_cell(self, F.lstm_cell, input, hx)


class GRUCell(torch.nn.GRUCell):
    """One step of a GRU: torch.nn.GRUCell by hand."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return _forward_cell(self, F.gru_cell, input, hx)


def _forward(module: Any, layers: Callable[..., tuple], input: Any, hx: Any) -> tuple:
    """The output and the last state: of a packed sequence, a batch or a single sequence."""
    module._update_flat_weights()
    weights = private.flat_weights(module)
    settings = (weights, module.bias, module.num_layers, module.dropout, module.training, module.bidirectional)
    if isinstance(input, PackedSequence):
        data, batch_sizes, sorted_indices, unsorted_indices = input
        hx = _zeros(module, data, batch_sizes) if hx is None else module.permute_hidden(hx, sorted_indices)
        if not isinstance(module, torch.nn.LSTM):  # whose packed input torch.nn leaves to its kernel to check
            module.check_forward_args(data, hx, batch_sizes)
        output, *last = layers(data, batch_sizes, hx, *settings)
        state = module.permute_hidden(_join(last), unsorted_indices)
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), state

    _check_dims(module, "input", input, (2, 3))
    is_batched, batch_dim = input.dim() == 3, 0 if module.batch_first else 1
    states = None if hx is None else [hx[0], hx[1]] if isinstance(module, torch.nn.LSTM) else [hx]
    if states is not None and any([state.dim() != input.dim() for state in states]):
        raise RuntimeError(
            f"For {'batched' if is_batched else 'unbatched'} {input.dim()}-D input, hx should also be "
            f"{input.dim()}-D but got {', '.join([f'{state.dim()}-D' for state in states])}"
        )
    if not is_batched:
        input = input.unsqueeze(batch_dim)
        states = None if states is None else [state.unsqueeze(1) for state in states]
    hx = _zeros(module, input, None) if states is None else _join(states)
    module.check_forward_args(input, hx, None)
    output, *last = layers(input, hx, *settings, module.batch_first)
    if not is_batched:
        output, last = output.squeeze(batch_dim), [state.squeeze(1) for state in last]
    return output, _join(last)


def _forward_cell(module: Any, cell: Callable[..., Any], input: Tensor, hx: Any) -> Any:
    """The state after one step: of a batch or of a single sequence."""
    _check_dims(module, "input", input, (1, 2))
    is_pair, is_batched = isinstance(module, torch.nn.LSTMCell), input.dim() == 2
    for number, state in enumerate(() if hx is None else hx if is_pair else (hx,)):
        _check_dims(module, f"hx[{number}]" if is_pair else "hidden", state, (1, 2))
    if not is_batched:
        input = input.unsqueeze(0)
        hx = None if hx is None else (hx[0].unsqueeze(0), hx[1].unsqueeze(0)) if is_pair else hx.unsqueeze(0)
    if hx is None:
        hidden, cell_state = [input.new_zeros(input.shape[0], module.hidden_size) for _ in range(2)]
        hx = (hidden, cell_state) if is_pair else hidden
    after = cell(input, hx, module.weight_ih, module.weight_hh, module.bias_ih, module.bias_hh)
    if is_batched:
        return after
    return (after[0].squeeze(0), after[1].squeeze(0)) if is_pair else after.squeeze(0)


def _check_dims(module: Any, name: str, tensor: Tensor, dims: tuple[int, int]) -> None:
    if tensor.dim() not in dims:
        raise ValueError(
            f"{type(module).__name__}: Expected {name} to be {dims[0]}D or {dims[1]}D, got {tensor.dim()}D instead"
        )


def _zeros(module: Any, input: Tensor, batch_sizes: Tensor | None) -> Any:
    """The state that a sequence starts from unless one is given."""
    hidden = input.new_zeros(module.get_expected_hidden_size(input, batch_sizes))
    if not isinstance(module, torch.nn.LSTM):
        return hidden
    return hidden, input.new_zeros(module.get_expected_cell_size(input, batch_sizes))


def _join(states: Sequence[Tensor]) -> Any:
    """A state as torch.nn gives and takes it: one tensor, or the LSTM's pair."""
    return states[0] if len(states) == 1 else tuple(states)
