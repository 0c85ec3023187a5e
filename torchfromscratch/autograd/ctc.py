"""Connectionist temporal classification: −log of the probability that the steps spell the target, however they align.

A path names a class at each step; without repetitions and then without blanks it spells a target. So it goes through
the extended target l' = blank l₁ blank l₂ … blank, of 2S + 1 labels, from one to the next, or over a blank between two
different labels. With x[t, c] = log y[t, c], and everything in logarithms,

    α_t(s) = x[t, l'_s] + log(e^α_{t−1}(s) + e^α_{t−1}(s−1) + e^α_{t−1}(s−2))      of all paths up to (t, s)
    β_t(s)                                                                         of all from (t, s) on: α backwards
    L = − log(e^α_T(2S) + e^α_T(2S−1))

The share of the paths that are at s at time t is γ_t(s) = exp(α_t(s) + β_t(s) − x[t, l'_s] + L), and

    dL/dx[t, c] = y[t, c] − Σ γ_t(s) over the s with l'_s = c

The derivative itself is the second term alone. Along x that stay logarithms of probabilities, Σ_c y = 1, the first
moves nothing; with it the gradient sums to 0, as what log_softmax hands on does. torch has it so.

Source: A. Graves et al., "Connectionist Temporal Classification", 2006.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.kernels.execution import in_cpu_memory, is_differentiating

# For log 0: exp of it is 0, sums of many of it are finite, and differences no NaN.
NEVER = -1e30


class CTC(Function):
    """L (N), and α (T, N, 2S + 1): of x (T, N, C), targets (N, S), and how many of T and S count in each sample (N).

    Where no path spells the target L is ∞ and its gradient NaN, or both are 0 with `zero_infinity`.
    """

    @staticmethod
    def forward(
        x: Tensor, targets: Tensor, steps: Tensor, lengths: Tensor, blank: int, zero_infinity: bool
    ) -> tuple[Tensor, Tensor]:
        path = _extend(targets, lengths, blank)
        alpha = _alpha(_emissions(x, path), path)
        loss = -_log_likelihood(alpha, steps, lengths)
        return loss.masked_fill(_is_infinite(loss), 0 if zero_infinity else torch.inf), alpha

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple:
        slope = _slope(restore(ctx), ctx.blank, ctx.zero_infinity)
        return slope * grad_output.unsqueeze(-1), None, None, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.blank, ctx.zero_infinity = inputs
        _, alpha = output
        ctx.mark_non_differentiable(alpha)
        save(ctx, (*tensors, alpha))

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: None) -> tuple:
        return (_slope(restore(ctx), ctx.blank, ctx.zero_infinity) * x_t).sum((0, 2)), None


ctc = differentiable(CTC)


class Path(NamedTuple):
    """The extended target l' (N, 2S + 1), which of its labels count, and which may follow the last but one."""

    labels: Tensor
    counts: Tensor
    skips: Tensor


def _extend(targets: Tensor, lengths: Tensor, blank: int) -> Path:
    """l' = blank l₁ blank l₂ … blank."""
    samples, most = targets.shape
    place = torch.arange(2 * most + 1, device=targets.device)
    counts = place <= 2 * lengths.unsqueeze(1)
    blanks = targets.new_full((samples, most), blank)
    labels = torch.cat([torch.stack([blanks, targets], 2).flatten(1), targets.new_full((samples, 1), blank)], 1)
    return _path(labels.masked_fill(~counts, blank), counts, blank)


def _path(labels: Tensor, counts: Tensor, blank: int) -> Path:
    differs = torch.zeros_like(counts)
    if labels.shape[1] > 2:
        later = (labels[:, 2:] != labels[:, :-2]) & (labels[:, 2:] != blank)
        differs = torch.cat([differs[:, :2], later], 1)
    return Path(labels, counts, differs)


def _emissions(x: Tensor, path: Path) -> Tensor:
    """x[t, l'_s] (T, N, 2S + 1)."""
    index = path.labels.unsqueeze(0).expand(x.shape[0], -1, -1)
    return x.clamp(min=NEVER).gather(2, index).masked_fill(~path.counts, NEVER)


def _alpha(emissions: Tensor, path: Path) -> Tensor:
    """α_t(s) of all steps, (T, N, 2S + 1)."""
    is_start = torch.arange(emissions.shape[2], device=emissions.device) < 2
    start = emissions[0].masked_fill(~is_start, NEVER)
    no_skip = torch.where(path.skips, 0.0, NEVER).to(emissions.dtype)
    if in_cpu_memory(emissions, no_skip) and not is_differentiating():
        return _alpha_in_place(emissions, start, no_skip)
    before = no_skip.new_full((no_skip.shape[0], 2), NEVER)
    rows = [start]
    for emission in emissions[1:].unbind(0):
        last = torch.cat([before, rows[-1]], 1)
        stay, step, skip = last[:, 2:], last[:, 1:-1], last[:, :-2] + no_skip
        rows.append(torch.logaddexp(torch.logaddexp(stay, step), skip) + emission)
    return torch.stack(rows)


def _alpha_in_place(emissions: Tensor, start: Tensor, no_skip: Tensor) -> Tensor:
    """`_alpha` written where it stays, behind two states that are never reached: few operations, which cost a CPU."""
    times, samples, states = emissions.shape
    padded = emissions.new_full((times, samples, states + 2), NEVER)
    stays, steps, skips = [padded.narrow(2, first, states).unbind(0) for first in (2, 1, 0)]
    skip = torch.empty_like(no_skip)
    stays[0].copy_(start)
    for t, emission in enumerate(emissions[1:].unbind(0)):
        torch.add(skips[t], no_skip, out=skip)
        torch.logaddexp(stays[t], steps[t], out=stays[t + 1])
        torch.logaddexp(stays[t + 1], skip, out=stays[t + 1]).add_(emission)
    return padded.narrow(2, 2, states).contiguous()


def _log_likelihood(alpha: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """log(e^α(2S) + e^α(2S − 1)) after the last step that counts; of no steps, 0 for a target of no labels."""
    last = (steps - 1).clamp(min=0).view(1, -1, 1).expand(1, -1, alpha.shape[2])
    final = alpha.gather(0, last).squeeze(0)
    end = (2 * lengths).unsqueeze(1)
    of_blank, of_label = final.gather(1, end), final.gather(1, (end - 1).clamp(min=0))
    total = torch.logaddexp(of_blank, of_label.masked_fill(end == 0, NEVER)).squeeze(1)
    return torch.where(steps == 0, torch.where(lengths == 0, 0.0, NEVER).to(total.dtype), total)


def _is_infinite(loss: Tensor) -> Tensor:
    return loss > -NEVER / 2


def _slope(tensors: tuple[Tensor, ...], blank: int, zero_infinity: bool) -> Tensor:
    """dL/dx (T, N, C) = y[t, c] − Σ γ_t(s) over the s with l'_s = c."""
    x, targets, steps, lengths, alpha = tensors
    path = _extend(targets, lengths, blank)
    emissions = _emissions(x, path)
    if is_differentiating():
        alpha = _alpha(emissions, path)
    loss = -_log_likelihood(alpha, steps, lengths)
    happens = torch.arange(x.shape[0], device=x.device).unsqueeze(1) < steps
    counts = happens.unsqueeze(2) & path.counts
    exponent = alpha + _beta(emissions, path, steps, lengths, blank) - emissions + loss.unsqueeze(1)
    gamma = exponent.masked_fill(~counts, NEVER).exp()
    index = path.labels.unsqueeze(0).expand_as(gamma)
    slope = x.exp().scatter_add(2, index, -gamma).masked_fill(~happens.unsqueeze(2), 0)
    is_infinite = (_is_infinite(loss) & happens).unsqueeze(2)
    return slope.masked_fill(is_infinite, 0 if zero_infinity else torch.nan)


def _beta(emissions: Tensor, path: Path, steps: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """β_t(s): α of the steps and the labels that count, from the last to the first, put back in order."""
    times, _, states = emissions.shape
    place = torch.arange(states, device=steps.device)
    moment = torch.arange(times, device=steps.device).view(-1, 1, 1)
    mirrored = (2 * lengths.unsqueeze(1) - place).clamp(min=0)
    in_space = mirrored.unsqueeze(0).expand_as(emissions)
    in_time = (steps.view(1, -1, 1) - 1 - moment).clamp(min=0).expand_as(emissions)
    reversed_path = _path(path.labels.gather(1, mirrored).masked_fill(~path.counts, blank), path.counts, blank)
    turned = emissions.gather(0, in_time).gather(2, in_space).masked_fill(~path.counts, NEVER)
    return _alpha(turned, reversed_path).gather(0, in_time).gather(2, in_space)
