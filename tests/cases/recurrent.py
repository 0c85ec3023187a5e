"""Recurrent layers: cells, layers, directions, projections, packed sequences, states given or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tests.cases import Case, ModuleCase, Shape

COMPILE = ("compile", "compile_with_inductor", "compile_where_no_gradient_is_asked_for")
UNTRACED = dict.fromkeys(COMPILE, "Dynamo traces no torch.nn.RNNBase")
UNKNOWN_SIZES = dict.fromkeys(COMPILE, "batch_sizes are data, not shapes")
BY_LUCK = dict.fromkeys(("accuracy", "autocast"), "few numbers; test_recurrent compares mean errors")


def functions(F: Any) -> Any:
    """Where the recurrent functions are: torch has them beside torch.nn.functional."""
    return F if hasattr(F, "lstm") else torch


def weights(gates: int, inputs: int, hidden: int, *, biases: bool = True, projection: int = 0) -> tuple[Shape, ...]:
    """The shapes of one scan's parameters."""
    rows = gates * hidden
    matrices = ((rows, inputs), (rows, projection or hidden))
    return (*matrices, *[(rows,), (rows,)] * biases, *[(projection, hidden)] * (projection > 0))


def lstm(F: Any, x: Tensor, h: Tensor, c: Tensor, *params: Tensor) -> tuple[Tensor, ...]:
    return functions(F).lstm(x, (h, c), params, True, 1, 0.0, False, False, False)


def packed_lstm(F: Any, x: Tensor, h: Tensor, c: Tensor, *params: Tensor) -> tuple[Tensor, ...]:
    return functions(F).lstm(x, torch.tensor([2, 2, 1]), (h, c), params, True, 1, 0.0, False, True)


def flat(module: Any, *arguments: Any) -> Any:
    """The module's answer with an LSTM's states side by side, as gradcheck wants it."""
    answer = module(*arguments)
    if isinstance(answer, Tensor):
        return answer
    output, last = answer
    output = output.data if isinstance(output, PackedSequence) else output
    return output, *(last if isinstance(last, tuple) else (last,))


def packed(module: Any, data: Tensor, state: Tensor) -> Any:
    """A call with three sequences of lengths 1, 4 and 2, packed."""
    order = torch.tensor([1, 2, 0], device=data.device)
    return flat(module, PackedSequence(data, torch.tensor([3, 2, 1, 1]), order, order.argsort()), state)


CASES = [
    Case(
        "rnn_tanh_cell",
        lambda F, x, h, *w: functions(F).rnn_tanh_cell(x, h, *w),
        ((3, 4), (3, 2), *weights(1, 4, 2)),
    ),
    Case(
        "rnn_relu_cell",
        lambda F, x, h, *w: functions(F).rnn_relu_cell(x, h, *w),
        ((3, 4), (3, 2), *weights(1, 4, 2, biases=False)),
    ),
    Case(
        "lstm_cell",
        lambda F, x, h, c, *w: functions(F).lstm_cell(x, (h, c), *w),
        ((3, 4), (3, 2), (3, 2), *weights(4, 4, 2)),
    ),
    Case(
        "gru_cell",
        lambda F, x, h, *w: functions(F).gru_cell(x, h, *w),
        ((3, 4), (3, 2), *weights(3, 4, 2)),
    ),
    Case(
        "rnn_tanh",
        lambda F, x, h, *w: functions(F).rnn_tanh(x, h, w, True, 1, 0.0, False, False, True),
        ((3, 4, 2), (1, 3, 2), *weights(1, 2, 2)),
        leave_out=BY_LUCK,
    ),
    Case(
        "rnn_relu",
        lambda F, x, h, *w: functions(F).rnn_relu(x, h, w, False, 2, 0.0, False, False, False),
        ((4, 3, 2), (2, 3, 2), *weights(1, 2, 2, biases=False), *weights(1, 2, 2, biases=False)),
    ),
    Case("lstm", lstm, ((4, 3, 2), (1, 3, 2), (1, 3, 2), *weights(4, 2, 2))),
    Case(
        "lstm projected",
        lstm,
        ((4, 3, 2), (1, 3, 1), (1, 3, 2), *weights(4, 2, 2, projection=1)),
        leave_out=BY_LUCK,
    ),
    Case(
        "lstm packed both ways",
        packed_lstm,
        ((5, 2), (2, 2, 2), (2, 2, 2), *weights(4, 2, 2), *weights(4, 2, 2)),
        leave_out=UNKNOWN_SIZES | BY_LUCK,
    ),
    Case(
        "gru",
        lambda F, x, h, *w: functions(F).gru(x, h, w, True, 1, 0.0, False, False, False),
        ((4, 3, 2), (1, 3, 2), *weights(3, 2, 2)),
    ),
]

MODULE_CASES = [
    ModuleCase("RNN", lambda nn: nn.RNN(3, 2), ((4, 3, 3),), leave_out=UNTRACED),
    ModuleCase(
        "RNN relu unbatched",
        lambda nn: nn.RNN(3, 2, nonlinearity="relu", bidirectional=True),
        ((4, 3), (2, 2)),
        leave_out=UNTRACED | BY_LUCK,
    ),
    ModuleCase(
        "LSTM deep both ways batch first",
        lambda nn: nn.LSTM(3, 2, num_layers=2, bidirectional=True, batch_first=True),
        ((3, 4, 3),),
        flat,
        leave_out=UNTRACED | BY_LUCK,
    ),
    ModuleCase(
        "LSTM projected",
        lambda nn: nn.LSTM(3, 3, proj_size=2, bias=False),
        ((4, 3, 3),),
        flat,
        leave_out=UNTRACED | BY_LUCK,
    ),
    ModuleCase("GRU without bias", lambda nn: nn.GRU(3, 2, bias=False), ((4, 3, 3),), leave_out=UNTRACED),
    ModuleCase(
        "GRU packed both ways",
        lambda nn: nn.GRU(3, 2, num_layers=2, bidirectional=True),
        ((7, 3), (4, 3, 2)),
        packed,
        leave_out=UNTRACED | BY_LUCK,
    ),
    ModuleCase("RNNCell", lambda nn: nn.RNNCell(3, 2, nonlinearity="relu"), ((4, 3), (4, 2))),
    ModuleCase("LSTMCell", lambda nn: nn.LSTMCell(3, 2), ((4, 3),)),
    ModuleCase("LSTMCell unbatched", lambda nn: nn.LSTMCell(3, 2), ((3,),)),
    ModuleCase("GRUCell", lambda nn: nn.GRUCell(3, 2, bias=False), ((4, 3), (4, 2))),
]
