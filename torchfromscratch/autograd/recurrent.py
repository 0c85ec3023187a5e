"""Recurrent layers: one scan over time, and the cells that it repeats.

A layer multiplies the whole sequence by its input weights at once, u_t = W_ih x_t + b_ih, and hands u to
the scan. A step of the scan multiplies the hidden state, then lets the cell combine the two element by element:

    v_t = W_hh h_{t−1} + b_hh        m_t, c_t = cell(u_t, v_t, h_{t−1}, c_{t−1})        h_t = W_hr m_t

(only the LSTM has a c, and only with a projection is h something else than m). The states are all that a
scan puts out, and all that its derivatives need: u, v and the gates of all steps follow from them at once.

Backpropagation through time. Elementwise, a cell's derivative is a set of slopes for every step, known before
the first step back is made. What is left to be done in order is linear: `pull`, the transpose of `push`, by
which a tangent moves forward. The sums over time in dL/dW wait for the end, when each is one product:

    dL/dm_t = W_hrᵀ dL/dh_t        dL/du_t, dL/dc_{t−1} = pull(dL/dm_t, dL/dc_t)        dL/dv_t = γ_t dL/du_t
    dL/dh_{t−1} = W_hhᵀ dL/dv_t, and in a GRU what `pull` gives it besides
    dL/dW_hh = Σ_t dL/dv_t h_{t−1}ᵀ        dL/db_hh = Σ_t dL/dv_t        dL/dW_hr = Σ_t dL/dh_t m_tᵀ

Sequences are packed: the rows of step 0, then those of step 1, and so on, the longest sequence first in
each, so that sequences which end leave from the bottom. A padded batch is the case where none ends early.

Source: lecture notes, "Recurrent Neural Network" and "LSTM Layer"; S. Hochreiter and J. Schmidhuber, "Long
short-term memory", 1997; H. Sak et al., "Long short-term memory based recurrent neural network
architectures", 2014 (the projection); K. Cho et al., "Learning phrase representations using RNN
encoder-decoder", 2014 (the GRU, with the reset gate applied as in torch.nn.GRU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd import elementwise
from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.kernels.execution import is_differentiating

States = Sequence[Tensor]


def sigmoid(input: Tensor) -> Tensor:
    """σ, by the Function of the activations' table where its derivative may be asked for."""
    return elementwise.sigmoid(input) if is_differentiating() else input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """tanh, likewise."""
    return elementwise.tanh(input) if is_differentiating() else input.tanh()


class Cell:
    """A step of a recurrent layer, element by element, and its derivative.

    u and v are (…, gates · H), states (…, H). They meet in the pre-activations, da = du + γ dv; from there on
    `push` is the derivative of the step, linear with given slopes, and `pull` is its transpose.
    """

    gates = 1
    gated = True
    """Whether the slopes are functions of u, v and the states before the step; else of those after it alone."""

    @staticmethod
    def step(u: Tensor, v: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """The states after the step from those before it."""
        raise NotImplementedError

    @staticmethod
    def slopes(u: Tensor, v: Tensor, before: States, after: States) -> States:
        """The factors of the derivative, of any number of steps at once."""
        raise NotImplementedError

    @staticmethod
    def scale(slopes: States, dv: Tensor) -> Tensor:
        """γ dv; γ is 1 in most cells."""
        return dv

    @staticmethod
    def push(slopes: States, da: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """The tangents of the states after the step from those of the pre-activations and the states before it."""
        raise NotImplementedError

    @staticmethod
    def pull(slopes: States, *after: Tensor) -> tuple[Any, ...]:
        """The gradients for a and for the states before the step; None for an h that acts through v alone."""
        raise NotImplementedError


class Tanh(Cell):
    """h' = tanh(a),  a = u + v

    dh' = (1 − h'²) da
    """

    gated = False

    @staticmethod
    def step(u: Tensor, v: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        return (tanh(u + v),)

    @staticmethod
    def slopes(u: Tensor, v: Tensor, before: States, after: States) -> States:
        (h,) = after
        return (1 - h * h,)

    @staticmethod
    def push(slopes: States, da: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        return (slopes[0] * da,)

    @staticmethod
    def pull(slopes: States, *after: Tensor) -> tuple[Any, ...]:
        return slopes[0] * after[0], None


class ReLU(Tanh):
    """h' = max(0, a),  a = u + v

    dh' = da where h' > 0, 0 elsewhere
    """

    @staticmethod
    def step(u: Tensor, v: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        return ((u + v).clamp(min=0),)

    @staticmethod
    def slopes(u: Tensor, v: Tensor, before: States, after: States) -> States:
        return after

    @staticmethod
    def push(slopes: States, da: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        return (elementwise.gate(da, slopes[0]),)

    @staticmethod
    def pull(slopes: States, *after: Tensor) -> tuple[Any, ...]:
        return elementwise.gate(after[0], slopes[0]), None


class LSTM(Cell):
    """i, f, o = σ(a), g = tanh(a),  a = u + v;  c' = f c + i g,  m' = o tanh(c')

    dc' = f dc + g i(1−i) da_i + c f(1−f) da_f + i (1−g²) da_g
    dm' = o (1−tanh²c') dc' + tanh(c') o(1−o) da_o
    """

    gates = 4

    @staticmethod
    def activate(u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = (u + v).chunk(4, -1)
        return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)

    @staticmethod
    def step(u: Tensor, v: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        i, f, g, o = LSTM.activate(u, v)
        c = f * before[1] + i * g
        return o * tanh(c), c

    @staticmethod
    def slopes(u: Tensor, v: Tensor, before: States, after: States) -> States:
        i, f, g, o = LSTM.activate(u, v)
        (_, c), t = before, tanh(after[1])
        dc_da = torch.stack([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g)], -2)
        return dc_da, f, o * (1 - t * t), t * o * (1 - o)

    @staticmethod
    def push(slopes: States, da: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        dc_da, dc_dc, dm_dc, dm_do = slopes
        *da_ifg, da_o = da.chunk(4, -1)
        dc = dc_dc * before[1] + (dc_da * torch.stack(da_ifg, -2)).sum(-2)
        return dm_dc * dc + dm_do * da_o, dc

    @staticmethod
    def pull(slopes: States, *after: Tensor) -> tuple[Any, ...]:
        dc_da, dc_dc, dm_dc, dm_do = slopes
        dm, dc = after
        dc = dc + dm_dc * dm
        return torch.cat([*(dc_da * dc.unsqueeze(-2)).unbind(-2), dm_do * dm], -1), None, dc_dc * dc


class GRU(Cell):
    """r, z = σ(a), n = tanh(a),  a = u + γ v, γ = (1, 1, r);  h' = (1 − z) n + z h

    dh' = z dh + k v_n r(1−r) da_r + (h − n) z(1−z) da_z + k da_n,  k = (1−z)(1−n²)
    """

    gates = 3

    @staticmethod
    def activate(u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        (u_r, u_z, u_n), (v_r, v_z, v_n) = u.chunk(3, -1), v.chunk(3, -1)
        r = sigmoid(u_r + v_r)
        return r, sigmoid(u_z + v_z), tanh(u_n + r * v_n)

    @staticmethod
    def step(u: Tensor, v: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        _, z, n = GRU.activate(u, v)
        return ((1 - z) * n + z * before[0],)

    @staticmethod
    def slopes(u: Tensor, v: Tensor, before: States, after: States) -> States:
        (h,), (r, z, n), v_n = before, GRU.activate(u, v), v.chunk(3, -1)[2]
        k = (1 - z) * (1 - n * n)
        dh_da = torch.stack([k * v_n * r * (1 - r), (h - n) * z * (1 - z), k], -2)
        one = torch.ones_like(r)
        return dh_da, z, torch.cat([one, one, r], -1)

    @staticmethod
    def scale(slopes: States, dv: Tensor) -> Tensor:
        return slopes[2] * dv

    @staticmethod
    def push(slopes: States, da: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        dh_da, dh_dh, _ = slopes
        return ((dh_da * torch.stack(da.chunk(3, -1), -2)).sum(-2) + dh_dh * before[0],)

    @staticmethod
    def pull(slopes: States, *after: Tensor) -> tuple[Any, ...]:
        dh_da, dh_dh, _ = slopes
        (dh,) = after
        return torch.cat((dh_da * dh.unsqueeze(-2)).unbind(-2), -1), dh_dh * dh


@dataclass(frozen=True)
class Timeline:
    """How many sequences reach step 0, 1, …, never growing, and which way the scan goes through them.

    Lists of steps are in the scan's order. A reversed scan starts at the end of the longest sequences and
    takes up the shorter ones on its way.
    """

    sizes: tuple[int, ...]
    reverse: bool = False

    def split(self, packed: Tensor) -> list[Tensor]:
        """The rows of each step."""
        first, last = self.sizes[0], self.sizes[-1]
        none_ends_early = first is last or first == last  # is: torch.jit.trace has a tensor for a size
        steps = packed.chunk(len(self.sizes)) if none_ends_early else packed.split(self.sizes)
        return list(steps)[:: -1 if self.reverse else 1]

    def join(self, steps: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat(steps[:: -1 if self.reverse else 1])

    def last(self, packed: Tensor) -> Tensor:
        """The row of each sequence at its last step."""
        return beginnings(self.split(packed)[::-1])

    @property
    def backwards(self) -> Timeline:
        """The same steps in the opposite order."""
        return Timeline(self.sizes, not self.reverse)


def beginnings(steps: list[Tensor]) -> Tensor:
    """The row of each sequence at its first step."""
    rows = steps[:1]
    for before, step in pairwise(steps):
        if step.shape[0] > before.shape[0]:
            rows.append(step.narrow(0, before.shape[0], step.shape[0] - before.shape[0]))
    return torch.cat(rows)


def scan(timeline: Timeline, step: Callable[..., tuple], start: States, *packed: Tensor) -> list[list[Tensor]]:
    """Carry states through time: states, outputs = step(states, *rows of the step); lists of the outputs' steps."""
    states, outputs = [state.narrow(0, 0, 0) for state in start], []
    for rows in zip(*[timeline.split(tensor) for tensor in packed], strict=True):
        states = [_enter(state, s, rows[0].shape[0]) for state, s in zip(states, start, strict=True)]
        states, output = step(states, *rows)
        outputs.append(output)
    return [list(steps) for steps in zip(*outputs, strict=True)]


def _enter(state: Tensor, start: Tensor, size: int) -> Tensor:
    """The states of `size` sequences: the last ones have left, or more begin."""
    present = state.shape[0]
    if size > present:
        return torch.cat([state, start.narrow(0, present, size - present)])
    return state if size == present else state.narrow(0, 0, size)


class Recurrence(Function):
    """s_t = cell(u_t, W_hh h_{t−1} + b_hh, s_{t−1}) for all steps of a timeline, where s is (h) or (h, c).

    u (R, gates · H), W_hh (gates · H, P), b_hh (gates · H) or None, W_hr (P, H) or None if P = H, and the
    states to start from, (N, P) and (N, H) → the states after each step, (R, P) and (R, H).
    """

    @staticmethod
    def forward(
        u: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        projection: Tensor | None,
        cell: type[Cell],
        timeline: Timeline,
        *start: Tensor,
    ) -> tuple[Tensor, ...]:
        def step(before: States, u: Tensor) -> tuple[States, States]:
            m, *c = cell.step(u, _affine(before[0], weight, bias), *before)
            after = [m if projection is None else m @ projection.mT, *c]
            return after, after

        return tuple([timeline.join(steps) for steps in scan(timeline, step, start, u)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        weight, projection, h, m, slopes = _linearise(ctx)
        cell, timeline = ctx.cell, ctx.timeline.backwards
        grads = tuple([grad.conj_physical() for grad in grads])  # J̄ᵀ g is the conjugate of Jᵀ ḡ

        def step(grads_later: States, *rows: Tensor) -> tuple[States, States]:
            grads_t, slopes_t = rows[: len(grads)], rows[len(grads) :]
            grad_h, *grad_c = [grad + later for grad, later in zip(grads_t, grads_later, strict=True)]
            grad_m = grad_h if projection is None else grad_h @ projection
            grad_u, besides, *grad_c = cell.pull(slopes_t, grad_m, *grad_c)
            if weight is None:  # a single step from a state that needs no gradient
                return nothing, [grad_u, grad_h, *nothing]
            through_v = cell.scale(slopes_t, grad_u) @ weight
            before = [through_v if besides is None else through_v + besides, *grad_c]
            return before, [grad_u, grad_h, *before]

        # comes back from behind a sequence's last step
        nothing = [grad.new_zeros(timeline.sizes[0], grad.shape[1]) for grad in grads]
        grads_u, grads_h, *grads_before = scan(timeline, step, nothing, *grads, *slopes)
        grad_u = timeline.join(grads_u)
        grad_v = cell.scale(slopes, grad_u)
        _, needs_weight, needs_bias, needs_projection, *_ = ctx.needs_input_grad
        gradients = (
            grad_u,
            grad_v.mT @ h if needs_weight else None,
            grad_v.sum(0) if needs_bias else None,
            timeline.join(grads_h).mT @ m if needs_projection else None,
            None,
            None,
            *[beginnings(steps[::-1]) for steps in grads_before],
        )
        return tuple([None if gradient is None else gradient.conj_physical() for gradient in gradients])

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        u, weight, bias, projection, ctx.cell, ctx.timeline, *start = inputs
        _, needs_weight, *_ = ctx.needs_input_grad
        needs_start = any(ctx.needs_input_grad[-len(start) :])
        gated, repeated = ctx.cell.gated, len(ctx.timeline.sizes) > 1 or needs_start
        needed_of_start = [gated or needs_weight] * len(start)
        needed_of_output = [not gated or len(ctx.timeline.sizes) > 1, *[True] * (len(output) - 1)]
        needed = (gated, gated or repeated, gated, True, *needed_of_start, *needed_of_output)
        save(ctx, (u, weight, bias, projection, *start, *output), needed)

    @staticmethod
    def jvp(
        ctx: Any,
        u_t: Tensor,
        weight_t: Tensor,
        bias_t: Tensor | None,
        projection_t: Tensor | None,
        _cell: None,
        _timeline: None,
        *start_t: Tensor,
    ) -> tuple[Tensor, ...]:
        weight, projection, h, m, slopes = _linearise(ctx)
        cell, timeline = ctx.cell, ctx.timeline

        def step(before: States, a_t: Tensor, h_t: Tensor, *slopes_t: Tensor) -> tuple[States, States]:
            a_t = a_t + cell.scale(slopes_t, before[0] @ weight.mT)
            m_t, *c_t = cell.push(slopes_t, a_t, *before)
            after = [m_t if projection is None else h_t + m_t @ projection.mT, *c_t]
            return after, after

        a_t = u_t + cell.scale(slopes, _affine(h, weight_t, bias_t))
        h_t = h if projection_t is None else m @ projection_t.mT  # without a projection, not looked at
        return tuple([timeline.join(steps) for steps in scan(timeline, step, start_t, a_t, h_t, *slopes)])


recurrence = differentiable(Recurrence)


def _affine(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return h @ weight.mT if bias is None else torch.addmm(bias, h, weight.mT)


def _linearise(ctx: Any) -> tuple:
    """What both derivatives of a Recurrence need of all steps, from the states."""
    u, weight, bias, projection, *states = restore(ctx)
    start, after = states[: len(states) // 2], states[len(states) // 2 :]
    v = m = None
    before = start
    if start[0] is not None and len(ctx.timeline.sizes) > 1:
        steps_before = scan(ctx.timeline, lambda before, *after: (after, before), start, *after)
        before = [ctx.timeline.join(steps) for steps in steps_before]
    if ctx.cell.gated:
        v = _affine(before[0], weight, bias)
        m = None if projection is None else ctx.cell.step(u, v, *before)[0]
    return weight, projection, before[0], m, ctx.cell.slopes(u, v, before, after)
