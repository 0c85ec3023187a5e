"""Recurrent layers and their cells, in the signatures of torch.lstm, torch.lstm_cell and so on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.linear import linear
from torchfromscratch.autograd.recurrent import GRU, LSTM, Cell, ReLU, Tanh, Timeline, recurrence
from torchfromscratch.functional.arguments import changeable, no_tensor
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.functional.dropout import dropout as drop_out
from torchfromscratch.kernels.execution import is_autocasting, warn_of_constants
from torchfromscratch.kernels.precision import widen

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell"]

_SETTINGS = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_PADDED = ("input", *_SETTINGS, "batch_first")
_PACKED = ("data", "batch_sizes", *_SETTINGS)


def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """h' = tanh(a), a = W_ih x + b_ih + W_hh h + b_hh, with dL/da = dL/dh' · (1 − h'²).

    Shapes: input (N, I), hx (N, H), w_ih (H, I), w_hh (H, H), b_ih and b_hh (H) → (N, H).
    Raises RuntimeError where shapes or types do not fit.
    Source: lecture notes, "Recurrent Neural Network (RNN Layer)".
    """
    return _single_step(Tanh, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """h' = max(0, a), a = W_ih x + b_ih + W_hh h + b_hh, with dL/da = dL/dh' where h' > 0 and 0 elsewhere.

    Shapes and errors: as `rnn_tanh_cell`.
    """
    return _single_step(ReLU, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """i, f, o = σ(a), g = tanh(a), a = W_ih x + b_ih + W_hh h + b_hh;  c' = f c + i g,  h' = o tanh(c').

    dL/dc' gains o (1 − tanh²c') dL/dh'; then dL/da = (g i(1−i), c f(1−f), i (1−g²)) · dL/dc' for i, f and g,
    and tanh(c') o(1−o) · dL/dh' for o; dL/dc = f dL/dc'.
    Shapes: input (N, I), hx two of (N, H), w_ih (4H, I), w_hh (4H, H), b_ih and b_hh (4H) → h' and c', (N, H).
    Raises RuntimeError where shapes or types do not fit.
    Source: lecture notes, "LSTM Layer (Long Short-Term Memory)".
    """
    _require_tensors("lstm_cell", hx=hx)
    if isinstance(hx, Tensor):
        raise TypeError("lstm_cell: hx must be a tuple of two Tensors, (h, c), but got one Tensor")
    if len(hx) != 2:
        raise RuntimeError(f"lstm_cell expects two hidden states, (h, c), but got {len(hx)}")
    h, c = hx
    c = c.view_as(c) if c is h else c  # torch.compile takes no tensor twice
    return _single_step(LSTM, input, (h, c), w_ih, w_hh, b_ih, b_hh)


def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """r, z = σ(u + v), n = tanh(u + r v), u = W_ih x + b_ih, v = W_hh h + b_hh;  h' = (1 − z) n + z h.

    With k = (1−z)(1−n²): dL/du = (k v r(1−r), (h−n) z(1−z), k) · dL/dh' for r, z and n, the same for dL/dv but
    with k r for n, and dL/dh = z dL/dh' + W_hhᵀ dL/dv.
    Shapes: input (N, I), hx (N, H), w_ih (3H, I), w_hh (3H, H), b_ih and b_hh (3H) → (N, H).
    Raises RuntimeError where shapes or types do not fit. Source: K. Cho et al., "Learning phrase
    representations using RNN encoder-decoder", 2014, in the form of torch.nn.GRU.
    """
    return _single_step(GRU, input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_tanh(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """`rnn_tanh_cell` repeated over time, in layers and directions, differentiated through time.

    Called, as torch.rnn_tanh, with a padded batch or with the parts of a PackedSequence:
        rnn_tanh(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
        rnn_tanh(data, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional)
    Shapes, with L layers and D directions: input (T, N, I), or (N, T, I) if batch_first, data (R, I) with R
    the sum of batch_sizes, hx (L·D, N, H), params of every layer and direction in torch.nn.RNN's order
    → output, as input with D·H features, and the last states, (L·D, N, H).
    Raises TypeError for other arguments, RuntimeError where shapes or types do not fit.
    """
    return _sequence("rnn_tanh", Tanh, args, kwargs)


def rnn_relu(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """`rnn_relu_cell` repeated over time; arguments, shapes and errors as `rnn_tanh`."""
    return _sequence("rnn_relu", ReLU, args, kwargs)


def lstm(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """`lstm_cell` repeated over time; arguments, shapes and errors as `rnn_tanh`, but with pairs of states.

    hx is (h, c), (L·D, N, P) and (L·D, N, H), and so are the last two results. If P differs from H, each layer
    has a projection: h' = W_hr o tanh(c'), W_hr (P, H) being the last of its params.
    Source of the projection: H. Sak et al., "Long short-term memory based recurrent neural network
    architectures", 2014.
    """
    return _sequence("lstm", LSTM, args, kwargs)


def gru(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """`gru_cell` repeated over time; arguments, shapes and errors as `rnn_tanh`."""
    return _sequence("gru", GRU, args, kwargs)


def _numbers(tensor: Tensor) -> tuple[int, ...]:
    """Its elements; before torch 2.11 `tolist` takes no tensor that was made inside a transform of torch.func."""
    try:
        return tuple(tensor.tolist())
    except RuntimeError:
        return tuple([int(number) for number in tensor])


def _sequence(name: str, cell: type[Cell], args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """One call in either of the two signatures."""
    packed = "batch_sizes" in kwargs or (len(args) > 1 and _is_integer(args[1]))
    names = _PACKED if packed else _PADDED
    given = {**dict(zip(names, args)), **kwargs}  # noqa: B905, as torch 2.6 compiles strict=False to True
    if len(args) + len(kwargs) != len(names) or given.keys() != set(names):
        raise TypeError(
            f"{name} takes either ({', '.join(_PADDED)}) or ({', '.join(_PACKED)}), but got {len(args)} positional "
            f"arguments and {list(kwargs)}"
        )
    _require_tensors(name, **{key: given[key] for key in (names[0], "hx", "params")})
    warn_of_constants("the steps of a recurrent layer one by one, for sequences of this length alone")
    given["hx"] = tuple(given["hx"]) if cell is LSTM else (given["hx"],)
    if cell is LSTM and len(given["hx"]) != 2:
        raise RuntimeError(f"lstm expects two hidden states, (h, c), but got {len(given['hx'])}")
    bidirectional = given["bidirectional"]  # whose output is a copy of both directions' states
    if packed:
        output, *last = _stack(cell, given.pop("data"), _numbers(given.pop("batch_sizes")), **given)
        return output if bidirectional else changeable(output), *last
    input, batch_first = given.pop("input"), given.pop("batch_first")
    _check_dims("input", input, ("batch", "time", "features") if batch_first else ("time", "batch", "features"))
    time_major = input.transpose(0, 1) if batch_first else input
    steps, batch, features = time_major.shape
    rows = time_major.reshape(steps * batch, features)
    output, *last = _stack(cell, rows, (batch,) * steps, **given)
    output = output.reshape(steps, batch, output.shape[1])
    output = output.transpose(0, 1) if batch_first else output
    return output if bidirectional else changeable(output), *last


def _stack(
    cell: type[Cell],
    rows: Tensor,
    sizes: tuple[int, ...],
    *,
    hx: tuple[Tensor, ...],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """Layers on top of each other, the directions of each side by side."""
    _check_sizes(sizes, rows)
    if train and num_layers > 1 and not 0 <= dropout <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout}")
    directions = (False, True) if bidirectional else (False,)
    scans = num_layers * len(directions)
    if any([s.dim() != 3 or s.shape[0] != scans for s in hx]):
        raise RuntimeError(
            f"{num_layers} layers in {len(directions)} directions need hidden states of ({scans}, batch, hidden), "
            f"but got {[list(s.shape) for s in hx]}"
        )
    projected = cell is LSTM and hx[0].shape[2] != hx[1].shape[2]
    keeps_state = cell is GRU or (cell is LSTM and (projected or sizes[0] != sizes[-1]))
    weights = _weights_per_scan(params, scans, has_biases, projected)
    starts = list(zip(*[s.unbind(0) for s in hx], strict=True))
    lasts: list[list[Tensor]] = []
    for layer in range(num_layers):
        outputs = []
        for reverse in directions:
            timeline, start = Timeline(sizes, reverse), starts[len(lasts)]
            states = _run(cell, timeline, rows, start, weights[len(lasts)], keeps_state)
            outputs.append(states[0])
            lasts.append([timeline.last(s) for s in states])
        rows = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if train and layer < num_layers - 1:
            rows = drop_out(rows, dropout)
    return rows, *[torch.stack(last) for last in zip(*lasts, strict=True)]


def _single_step(
    cell: type[Cell],
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, ...]:
    """A scan of one step; a cell state of a wider type widens both states that come out."""
    _check_dims("input", input, ("batch", "features"))
    _check_step(input, hx, w_ih.shape[-1], w_hh.shape[-1])
    timeline = Timeline((input.shape[0],))
    tensors: tuple[Any, ...] = (input, hx[0], w_ih, w_hh, b_ih, b_hh)
    if cell is LSTM and not is_autocasting(input.device.type):
        tensors = _in_type_of_cell_state(hx[1], *tensors)
    input, h, *weights = tensors
    h, *c = _run(cell, timeline, input, (h, *hx[1:]), (*weights, None), keeps_state=cell in (LSTM, GRU))
    return h, *[changeable(state) for state in c]


def _run(
    cell: type[Cell], timeline: Timeline, input: Tensor, start: Sequence[Tensor], weights: tuple, keeps_state: bool
) -> tuple[Tensor, ...]:
    """The states of one scan, packed."""
    _check_scan(cell, input, timeline.sizes[0], start, *weights)
    run = _scan_in_type_of_state if keeps_state else _scan_in_lower_precision
    return run(cell, timeline, input, *weights, *start)


def _scan(cell: type[Cell], timeline: Timeline, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """The scan in the type of its tensors, or, if that is narrow, in float32 and rounded once.

    The LSTM's cell state may be of another type, and comes out in the one that both promote to.
    """
    *others, last = [tensor for tensor in tensors if tensor is not None]
    types = {tensor.dtype for tensor in (others if cell is LSTM else (*others, last))}
    if len(types) > 1:
        raise RuntimeError(f"input, weights and states must have the same dtype, but got {types}")
    (dtype,) = types
    common = torch.promote_types(dtype, last.dtype)
    input, w_ih, w_hh, b_ih, b_hh, w_hr, *start = [None if x is None else widen(x.to(common)) for x in tensors]
    if cell is not GRU:  # whose gates are functions of u + v
        b_ih, b_hh = b_hh if b_ih is None else b_ih if b_hh is None else b_ih + b_hh, None
    elif b_hh is not None:
        b_hh = changeable(b_hh)
    h, *c = recurrence(linear(input, w_ih, b_ih), w_hh, b_hh, w_hr, cell, timeline, *start)
    return h.to(dtype), *[state.to(common) for state in c]


_scan_in_lower_precision = autocast(cpu="lower", cuda="lower")(_scan)


@autocast(cpu="as given", cuda="lower")
def _scan_in_type_of_state(cell: type[Cell], timeline: Timeline, *tensors: Any) -> tuple[Tensor, ...]:
    """Under autocast on CPU, states come out in the type that they come in; a projection is in the lower precision."""
    state, projection = tensors[-1], tensors[5]
    if state.device.type != "cpu" or not is_autocasting("cpu") or tensors[0].dtype == torch.float64:
        return _scan(cell, timeline, *tensors)
    tensors = tuple([None if tensor is None else tensor.to(state.dtype) for tensor in tensors])
    h, *c = _scan(cell, timeline, *tensors)
    return h if projection is None else h.to(torch.get_autocast_dtype("cpu")), *c


def _in_type_of_cell_state(c: Tensor, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors, if they are of one type, in that which it and the cell state's promote to."""
    types = {tensor.dtype for tensor in tensors if tensor is not None}
    if len(types) > 1:
        return tensors
    common = torch.promote_types(c.dtype, *types)
    return tuple([None if tensor is None else tensor.to(common) for tensor in tensors])


def _require_tensors(function: str, **given: Any) -> None:
    """TypeError unless the arguments are tensors, or sequences of tensors."""
    for name, values in given.items():
        for value in values if isinstance(values, Sequence) else (values,):
            if not isinstance(value, Tensor):
                raise no_tensor(function, name, value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())


def _weights_per_scan(
    params: Sequence[Tensor], scans: int, has_biases: bool, projected: bool
) -> list[tuple[Tensor | None, ...]]:
    """(w_ih, w_hh, b_ih, b_hh, w_hr) of each layer and direction, None where it has none."""
    size = 2 + 2 * has_biases + projected
    if len(params) != size * scans:
        raise RuntimeError(
            f"{scans} scans (layers times directions) of {size} weights each need {size * scans} params, "
            f"but got {len(params)}"
        )
    weights: list[tuple[Tensor | None, ...]] = []
    for first in range(0, len(params), size):
        w_ih, w_hh, *rest = params[first : first + size]
        b_ih, b_hh = rest[:2] if has_biases else (None, None)
        weights.append((w_ih, w_hh, b_ih, b_hh, rest[-1] if projected else None))
    return weights


def _check_dims(name: str, tensor: Tensor, dims: Sequence[str]) -> None:
    """torch's IndexError for too few dimensions, RuntimeError for too many."""
    if tensor.dim() != len(dims):
        raise (IndexError if tensor.dim() < len(dims) else RuntimeError)(
            f"{name} must be ({', '.join(dims)}), but has the size {list(tensor.shape)}"
        )


def _check_sizes(sizes: tuple[int, ...], rows: Tensor) -> None:
    if not sizes:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    _check_dims("data", rows, ("rows", "features"))
    if list(sizes) != sorted(sizes, reverse=True) or sum(sizes) != rows.shape[0]:
        raise RuntimeError(
            f"batch_sizes must not grow and must add up to the {rows.shape[0]} rows of data, but got {list(sizes)}"
        )


def _check_step(input: Tensor, hx: Sequence[Tensor], features: int, hidden: int) -> None:
    """RuntimeError unless a batch and its states fit each other and the weights."""
    if input.shape[1] != features:
        raise RuntimeError(f"input has inconsistent input_size: got {input.shape[1]} expected {features}")
    for number, state in enumerate(hx):
        _check_dims(f"hidden{number}", state, ("batch", "hidden"))
        if state.shape[0] != input.shape[0]:
            raise RuntimeError(
                f"Input batch size {input.shape[0]} doesn't match hidden{number} batch size {state.shape[0]}"
            )
        if state.shape[1] != hidden:
            raise RuntimeError(f"hidden{number} has inconsistent hidden_size: got {state.shape[1]}, expected {hidden}")


def _check_scan(
    cell: type[Cell],
    input: Tensor,
    batch: int,
    start: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    w_hr: Tensor | None,
) -> None:
    """RuntimeError unless the sizes fit those of w_hh."""
    gates, projected = w_hh.shape[0], w_hh.shape[-1]
    hidden = gates // cell.gates
    expected = {
        "input": (input, (input.shape[0], w_ih.shape[-1])),
        "w_ih": (w_ih, (gates, w_ih.shape[-1])),
        "w_hh": (w_hh, (cell.gates * hidden, hidden if w_hr is None else projected)),
        "b_ih": (b_ih, (gates,)),
        "b_hh": (b_hh, (gates,)),
        "w_hr": (w_hr, (projected, hidden)),
        "hidden state": (start[0], (batch, projected)),
        "cell state": (start[-1], (batch, projected if len(start) == 1 else hidden)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise RuntimeError(
                f"{name} must have the size {list(shape)} next to w_hh of {list(w_hh.shape)}, w_ih of "
                f"{list(w_ih.shape)} and {batch} sequences, but has {list(tensor.shape)}"
            )
