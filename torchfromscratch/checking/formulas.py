"""Each layer's definition, by plain operations: what an implementation is judged by.

Nothing here is fast, and nothing is a layer's kernel. Autograd differentiates the definitions, to any order;
finite differences confirm it in every case. Signatures and argument names are torch.nn.functional's, but for
options that change nothing of what is computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Size = int | Sequence[int]


def as_tuple(size: Size, dims: int) -> tuple[int, ...]:
    """`size` along each of `dims` dimensions."""
    return (size,) * dims if isinstance(size, int) else tuple(size)


# Windows


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with `value` before and after its last dimensions; negative numbers crop."""
    for dim, (low, high) in enumerate(zip(before, after, strict=True), x.dim() - len(before)):
        x = x.narrow(dim, max(0, -low), x.shape[dim] - max(0, -low) - max(0, -high))
        borders = [x.new_full((*x.shape[:dim], max(0, n), *x.shape[dim + 1 :]), value) for n in (low, high)]
        x = torch.cat([borders[0], x, borders[1]], dim)
    return x


def windows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """(…, O1, O2, K1, K2): what lies below the kernel, at each of its positions."""
    dims = len(kernel)
    for dim, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), x.dim() - dims):
        x = x.unfold(dim, d * (k - 1) + 1, s)
    return x[within(slice(None, None, d) for d in dilation)]


def within(last: Iterable[int | slice]) -> Any:
    """An index of the last dimensions."""
    return (..., *last)


def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """y[n, o, i] = b[o] + Σ w[o, c, k] · x[n, c, i·s + k·d − p]."""
    dims = weight.dim() - 2
    p = as_tuple(padding, dims)
    x = windows(pad(input, p, p), weight.shape[2:], as_tuple(stride, dims), as_tuple(dilation, dims))
    positions, taps = "ijk"[:dims], "xyz"[:dims]
    x = x.unflatten(1, (groups, input.shape[1] // groups))
    w = weight.unflatten(0, (groups, weight.shape[0] // groups))
    y = torch.einsum(f"ngc{positions}{taps},goc{taps}->ngo{positions}", x, w).flatten(1, 2)
    return y if bias is None else y + bias.view(-1, *[1] * dims)


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """y[n, o, i·s + k·d − p] += w[c, o, k] · x[n, c, i], and b[o] everywhere."""
    dims = weight.dim() - 2
    s, p, d = as_tuple(stride, dims), as_tuple(padding, dims), as_tuple(dilation, dims)
    kernel = weight.shape[2:]
    reach = [step * (k - 1) for step, k in zip(d, kernel, strict=True)]
    spread = insert_zeros(input, s)
    extra = [r - q for r, q in zip(reach, p, strict=True)]
    behind = [e + o for e, o in zip(extra, as_tuple(output_padding, dims), strict=True)]
    w = weight.unflatten(0, (groups, weight.shape[0] // groups)).transpose(1, 2).flatten(0, 1)
    return conv(pad(spread, extra, behind), w.flip(*range(2, 2 + dims)), bias, 1, 0, d, groups)


def insert_zeros(x: Tensor, stride: Sequence[int]) -> Tensor:
    """`x` with s − 1 zeros between neighbours."""
    for dim, s in enumerate(stride, x.dim() - len(stride)):
        if s > 1:
            zeros = x.new_zeros(*x.shape[: dim + 1], s - 1, *x.shape[dim + 1 :])
            x = torch.cat([x.unsqueeze(dim + 1), zeros], dim + 1).flatten(dim, dim + 1)
            x = x.narrow(dim, 0, max(0, x.shape[dim] - s + 1))
    return x


# Pooling


def positions(length: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """How many windows there are; with `ceil_mode` the last may reach beyond the padding, but begins before it."""
    room = length + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return room // s + 1
    count = -(-room // s) + 1
    return count - 1 if (count - 1) * s >= length + p else count


def pool_windows(
    x: Tensor, k: Sequence[int], s: Sequence[int], p: Sequence[int], d: Sequence[int], ceil_mode: bool, value: float
) -> Tensor:
    """(…, O1, O2, K1·K2): the windows of a pooling layer, `value` wherever they reach beyond the input."""
    lengths = x.shape[x.dim() - len(k) :]
    counts = [positions(*numbers, ceil_mode) for numbers in zip(lengths, k, s, p, d, strict=True)]
    ends = [(c - 1) * s + d * (k - 1) + 1 for c, k, s, d in zip(counts, k, s, d, strict=True)]
    behind = [end - n - p for end, n, p in zip(ends, lengths, p, strict=True)]
    return windows(pad(x, p, behind, value), k, s, d).flatten(-len(k))


def first_of_largest(x: Tensor) -> Tensor:
    """A mask over the last dimension: the first of the largest elements."""
    largest = x == x.amax(-1, keepdim=True)
    return largest & (largest.cumsum(-1) == 1)


def max_pool(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest element of each window; the first of several has the gradient. The padding is −∞."""
    dims = input.dim() - 2
    k, p, d = (as_tuple(size, dims) for size in (kernel_size, padding, dilation))
    s = k if stride is None else as_tuple(stride, dims)
    x = pool_windows(input, k, s, p, d, ceil_mode, -math.inf)
    return torch.where(first_of_largest(x), x, 0).sum(-1)


def avg_pool(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The sum of each window over its number of elements: with the padding, but not with what lies beyond it."""
    dims = input.dim() - 2
    k, p = as_tuple(kernel_size, dims), as_tuple(padding, dims)
    s = k if stride is None else as_tuple(stride, dims)
    x = pool_windows(input, k, s, p, (1,) * dims, ceil_mode, 0.0)
    counted = input.new_ones(1, 1, *input.shape[2:])
    if count_include_pad:
        counted, p = pad(counted, p, p, 1.0), (0,) * dims
    divisor = pool_windows(counted, k, s, p, (1,) * dims, ceil_mode, 0.0).sum(-1)
    divisor = divisor[tuple(slice(n) for n in (1, 1, *x.shape[2:-1]))]
    return x.sum(-1) / (divisor if divisor_override is None else divisor_override)


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """As `avg_pool`, which has one option more."""
    return avg_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def spans(length: int, count: int) -> list[range]:
    """What adaptive pooling reduces: from ⌊i·n/o⌋ to ⌈(i + 1)·n/o⌉."""
    return [range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive(input: Tensor, output_size: Size, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """`reduce` of each of as many regions as the output has elements."""
    dims = input.dim() - 2
    size = [n if o is None else o for n, o in zip(input.shape[2:], as_tuple(output_size, dims), strict=True)]
    cells = itertools.product(*(spans(n, o) for n, o in zip(input.shape[2:], size, strict=True)))
    regions = [input[within(slice(r.start, r.stop) for r in cell)].flatten(2) for cell in cells]
    return torch.stack([reduce(region) for region in regions], -1).unflatten(-1, size)


def adaptive_avg_pool(input: Tensor, output_size: Size) -> Tensor:
    """The mean of each region."""
    return adaptive(input, output_size, lambda region: region.sum(-1) / region.shape[-1])


def adaptive_max_pool(input: Tensor, output_size: Size) -> Tensor:
    """The largest element of each region; the first of several has the gradient."""
    return adaptive(input, output_size, lambda region: torch.where(first_of_largest(region), region, 0).sum(-1))


# Linear, embedding, dropout


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b."""
    y = input @ weight.T
    return y if bias is None else y + bias


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """y = W[i]; the row `padding_idx` has no gradient."""
    if padding_idx is not None:
        row = torch.arange(weight.shape[0]).unsqueeze(1) == padding_idx % weight.shape[0]
        weight = torch.where(row, weight.detach(), weight)
    return weight[input]


def dropout(input: Tensor, mask: Tensor, p: float = 0.5) -> Tensor:
    """y = x · mask / (1 − p), where the mask is 1 for what is kept and 0 for what is dropped."""
    return input * mask / (1 - p)


# Activations


def relu(input: Tensor) -> Tensor:
    """x where x > 0, else 0, with derivative 0 at 0."""
    return torch.where(input > 0, input, 0)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else slope · x, with derivative slope at 0."""
    return torch.where(input > 0, input, negative_slope * input)


def sigmoid(input: Tensor) -> Tensor:
    """σ(x) = 1 / (1 + e⁻ˣ)."""
    return 1 / (1 + (-input).exp())


def tanh(input: Tensor) -> Tensor:
    """2 σ(2x) − 1."""
    return 2 * sigmoid(2 * input) - 1


def largest(x: Tensor, dim: int) -> Tensor:
    """A constant that keeps exponentials from overflowing."""
    return x.detach().amax(dim, keepdim=True) if x.numel() else x.new_zeros(())


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """eˣ / Σ eˣ."""
    e = (input - largest(input, dim)).exp()
    return e / e.sum(dim, keepdim=True)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    """x − log Σ eˣ."""
    x = input - largest(input, dim)
    return x - x.exp().sum(dim, keepdim=True).log()


# Losses


def reduce_losses(loss: Tensor, reduction: str, count: Any = None) -> Tensor:
    """The losses, their sum, or their sum over their number (or over `count`)."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / (loss.numel() if count is None else count)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−w[t] · log softmax(x)[t], smoothed towards the mean over all classes; the mean is over the weights w[t]."""
    log_p = log_softmax(input, 1).movedim(1, -1)
    classes = log_p.shape[-1]
    w = log_p.new_ones(classes) if weight is None else weight
    counted = target != ignore_index
    t = torch.where(counted, target, 0)
    w_t = torch.where(counted, w[t], 0)
    nll = -w_t * log_p.gather(-1, t.unsqueeze(-1)).squeeze(-1)
    smooth = torch.where(counted, -(log_p * w).sum(-1), 0)
    loss = (1 - label_smoothing) * nll + label_smoothing / classes * smooth
    return reduce_losses(loss, reduction, w_t.sum())


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """−w[t] · x[t]; the mean is over the weights w[t]."""
    counted = target != ignore_index
    t = torch.where(counted, target, 0)
    w_t = torch.where(counted, input.new_ones(()) if weight is None else weight[t], 0)
    loss = -w_t * input.movedim(1, -1).gather(-1, t.unsqueeze(-1)).squeeze(-1)
    return reduce_losses(loss, reduction, w_t.sum())


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """−w · (t log x + (1 − t) log(1 − x))."""
    loss = -(target * input.log() + (1 - target) * (1 - input).log())
    return reduce_losses(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """−w · (u t log σ(x) + (1 − t) log(1 − σ(x))), u the weight of what is positive."""
    u = 1.0 if pos_weight is None else pos_weight
    loss = -(u * target * sigmoid(input).log() + (1 - target) * sigmoid(-input).log())
    return reduce_losses(loss if weight is None else loss * weight, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """w · (x − t)²."""
    loss = (input - target) ** 2
    if weight is None:
        return reduce_losses(loss, reduction)
    return reduce_losses(loss * weight, reduction, weight.expand_as(loss).sum())


# Normalisation


def standardize(x: Tensor, dims: list[int], eps: float) -> Tensor:
    """(x − mean) / √(variance + ε), the variance without Bessel's correction."""
    d = x - x.mean(dims, keepdim=True)
    return d / ((d * d).mean(dims, keepdim=True) + eps).sqrt()


def per_channel(x: Tensor | None, like: Tensor) -> Tensor | None:
    """One number for each channel, shaped to meet an input."""
    return None if x is None else x.view(-1, *[1] * (like.dim() - 2))


def scale(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """γ x + β."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """γ x̂ + β with statistics of each channel over batch and positions, or, outside of training, given ones."""
    mean, var, weight, bias = (per_channel(x, input) for x in (running_mean, running_var, weight, bias))
    if training or mean is None or var is None:
        x = standardize(input, [0, *range(2, input.dim())], eps)
    else:
        x = (input - mean) / (var + eps).sqrt()
    return scale(x, weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """γ x̂ + β with statistics of each channel of each sample over its positions."""
    weight, bias = (per_channel(x, input) for x in (weight, bias))
    return scale(standardize(input, [*range(2, input.dim())], eps), weight, bias)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """γ x̂ + β with statistics over the last dimensions."""
    return scale(standardize(input, [*range(-len(normalized_shape), 0)], eps), weight, bias)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """γ x̂ + β with statistics of each group of channels of each sample."""
    weight, bias = (per_channel(x, input) for x in (weight, bias))
    groups = input.reshape(input.shape[0], num_groups, input.shape[1] // num_groups, *input.shape[2:])
    x = standardize(groups, [*range(2, groups.dim())], eps).reshape(input.shape)
    return scale(x, weight, bias)


# Attention and recurrent cells


def attention_mask(query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    """What is added to the scores: −∞ where a query may not look at a key."""
    rows, columns = query.shape[-2], key.shape[-2]
    allowed = torch.ones(rows, columns, dtype=torch.bool)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        allowed = allowed & attn_mask
    added = torch.where(allowed, query.new_zeros(()), -math.inf)
    return added if attn_mask is None or attn_mask.dtype == torch.bool else added + attn_mask


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(Q Kᵀ / √d + mask) V."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    return softmax(scores + attention_mask(query, key, attn_mask, is_causal)) @ value


def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh)."""
    return tanh(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """h' = max(0, W_ih x + b_ih + W_hh h + b_hh)."""
    return relu(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def lstm_cell(
    input: Tensor,
    hx: Tensor,
    cx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c'), where i, f, g, o are the quarters of W_ih x + W_hh h + b."""
    i, f, g, o = (linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh)).chunk(4, -1)
    c = sigmoid(f) * cx + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """h' = (1 − z) n + z h with r, z = σ(u + v) and n = tanh(u + r v), u = W_ih x + b_ih, v = W_hh h + b_hh."""
    u_r, u_z, u_n = linear(input, w_ih, b_ih).chunk(3, -1)
    v_r, v_z, v_n = linear(hx, w_hh, b_hh).chunk(3, -1)
    r, z = sigmoid(u_r + v_r), sigmoid(u_z + v_z)
    n = tanh(u_n + r * v_n)
    return (1 - z) * n + z * hx
