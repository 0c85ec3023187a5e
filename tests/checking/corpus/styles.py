"""Right implementations in more styles: transforms, matrices, buffers of their own, modules, NumPy, one precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tests.checking.corpus import right
from tests.checking.corpus.convolution import pair


def by_channel(x: Tensor | None, like: Tensor) -> Any:
    return None if x is None else x.view(-1, *[1] * (like.dim() - 2))


@right("conv2d")
def conv2d_in_the_frequency_domain(input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any) -> Tensor:
    (ph, pw), (sh, sw) = pair(padding), pair(stride)
    x = F.pad(input, (pw, pw, ph, ph))
    size = tuple(x.shape[2:])
    product = torch.einsum("nchw,ochw->nohw", torch.fft.rfft2(x), torch.fft.rfft2(weight, s=size).conj())
    y = torch.fft.irfft2(product, s=size)
    y = y[:, :, : size[0] - weight.shape[2] + 1 : sh, : size[1] - weight.shape[3] + 1 : sw]
    return y if bias is None else y + bias[:, None, None]


@right("conv2d")
class Conv2dByColumns(torch.autograd.Function):
    """im2col and col2im, with options that may be left out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Any = None, stride: Any = 1, padding: Any = 0) -> Tensor:
        columns = F.unfold(x, w.shape[2:], stride=stride, padding=padding)
        ctx.save_for_backward(columns, w)
        ctx.x_size, ctx.options, ctx.has_bias = x.shape, {"stride": stride, "padding": padding}, b is not None
        size = [(x.shape[d + 2] + 2 * pair(padding)[d] - w.shape[d + 2]) // pair(stride)[d] + 1 for d in (0, 1)]
        y = (w.flatten(1) @ columns).view(len(x), len(w), *size)
        return y if b is None else y.add_(b.view(-1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        columns, w = ctx.saved_tensors
        g = g.flatten(2)
        dx = F.fold(w.flatten(1).T @ g, ctx.x_size[2:], w.shape[2:], **ctx.options)
        dw = torch.einsum("nol,nkl->ok", g, columns).view(w.shape)
        return dx, dw, g.sum((0, 2)) if ctx.has_bias else None, None, None


@right("conv2d")
class Conv2dModule(nn.Module):
    """A class of modules that says what it is made of, as torch.nn's."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding = pair(stride), pair(padding)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *pair(kernel_size)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        (ph, pw), (sh, sw) = self.padding, self.stride
        x = F.pad(x, (pw, pw, ph, ph)).unfold(2, self.weight.shape[2], sh).unfold(3, self.weight.shape[3], sw)
        y = torch.tensordot(x, self.weight, ([1, 4, 5], [1, 2, 3])).movedim(-1, 1)
        return y if self.bias is None else y + self.bias[:, None, None]


@right("conv2d")
def conv2d_in_float32_alone(input: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    if input.dtype != torch.float32:
        raise TypeError("float32 only")
    return F.conv2d(input, weight, bias)


@right("conv1d")
def conv1d_by_a_matrix(input: Tensor, weight: Tensor, bias: Any, stride: int, padding: int, dilation: int) -> Tensor:
    """The Toeplitz matrix of the kernel."""
    x = F.pad(input, (padding, padding))
    n, k = x.shape[2], weight.shape[2]
    rows = []
    for begin in range(0, n - dilation * (k - 1), stride):
        row = weight.new_zeros(*weight.shape[:2], n)
        row[..., begin : begin + dilation * (k - 1) + 1 : dilation] = weight
        rows.append(row)
    y = torch.einsum("ncx,ocxi->noi", x, torch.stack(rows, -1))
    return y if bias is None else y + bias[:, None]


@right("conv_transpose2d")
def transposed_by_folding(input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any) -> Tensor:
    s, p, k = pair(stride), pair(padding), weight.shape[2:]
    size = [(n - 1) * s[d] - 2 * p[d] + k[d] for d, n in enumerate(input.shape[2:])]
    y = F.fold(weight.flatten(1).T @ input.flatten(2), size, k, padding=p, stride=s)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


@right("max_pool2d")
class MaxPoolInItsOwnBuffers(torch.autograd.Function):
    """Tap by tap: the largest so far, and which tap it was; both are written in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
        k, s, p = pair(kernel_size), pair(stride or kernel_size), pair(padding)
        wide = F.pad(x, (p[1], p[1], p[0], p[0]), value=-math.inf)
        size = [(n - k[d]) // s[d] + 1 for d, n in enumerate(wide.shape[2:])]
        y = x.new_full((*x.shape[:2], *size), -math.inf)
        taps = torch.zeros(y.shape, dtype=torch.uint8)
        for number in range(k[0] * k[1]):
            seen = wide[:, :, number // k[1] :, number % k[1] :][:, :, :: s[0], :: s[1]][:, :, : size[0], : size[1]]
            larger = seen > y
            y[larger] = seen[larger]
            taps[larger] = number
        ctx.save_for_backward(taps)
        ctx.geometry = k, s, p, x.shape
        ctx.mark_non_differentiable(taps)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (taps,) = ctx.saved_tensors
        k, s, p, size = ctx.geometry
        grad = g.new_zeros(*size[:2], size[2] + 2 * p[0], size[3] + 2 * p[1])
        for number in range(k[0] * k[1]):
            row, column = divmod(number, k[1])
            rows = slice(row, row + (g.shape[2] - 1) * s[0] + 1, s[0])
            columns = slice(column, column + (g.shape[3] - 1) * s[1] + 1, s[1])
            grad[:, :, rows, columns] += torch.where(taps == number, g, 0)
        return grad[:, :, p[0] : p[0] + size[2], p[1] : p[1] + size[3]], None, None, None


@right("avg_pool2d")
def average_by_running_sums(input: Tensor, kernel_size: Any, stride: Any = None) -> Tensor:
    """The integral image."""
    k, s = pair(kernel_size), pair(stride or kernel_size)
    total = F.pad(input, (1, 0, 1, 0)).cumsum(2).cumsum(3)
    sums = total[:, :, k[0] :] - total[:, :, : -k[0]]
    sums = sums[..., k[1] :] - sums[..., : -k[1]]
    return sums[:, :, :: s[0], :: s[1]] / (k[0] * k[1])


@right("adaptive_max_pool1d")
def adaptive_max_region_by_region(input: Tensor, output_size: Any) -> Tensor:
    o, n = output_size if isinstance(output_size, int) else output_size[0], input.shape[2]
    return torch.stack([input[..., i * n // o : -(-(i + 1) * n // o)].max(2).values for i in range(o)], 2)


@right("relu")
class ReluOfACopy(torch.autograd.Function):
    """Works in place on its own copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        y = x.clone()
        y[x < 0] = 0
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return g.clone().masked_fill_(~mask, 0)


@right("sigmoid")
def sigmoid_by_tanh(input: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(input / 2))


@right("tanh")
class TanhInNumpy(torch.autograd.Function):
    """Cannot be differentiated twice, and says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.from_numpy(np.array(np.tanh(x.detach().numpy())))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.from_numpy(np.array(g.numpy() * (1 - y.numpy() ** 2)))


@right("softmax")
def softmax_of_differences(input: Tensor, dim: int = -1) -> Tensor:
    """1 / Σ e^(x_j − x_i)."""
    x = input.movedim(dim, -1)
    return (1 / (x.unsqueeze(-2) - x.unsqueeze(-1)).exp().sum(-1)).movedim(-1, dim)


@right("log_softmax")
class LogSoftmaxInItsOwnBuffer(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, dim: int = -1) -> Tensor:
        y = x - x.amax(dim, keepdim=True)
        y -= y.exp().sum(dim, keepdim=True).log_()
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.dim = inputs[1] if len(inputs) > 1 else -1
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g - y.exp() * g.sum(ctx.dim, keepdim=True), None


@right("cross_entropy")
def cross_entropy_by_one_hot(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    classes = torch.arange(input.shape[1]).view(-1, *[1] * (input.dim() - 2))
    onehot = ((classes == target.unsqueeze(1)) & (target != ignore_index).unsqueeze(1)).to(input)
    onehot = onehot if weight is None else onehot * by_channel(weight, input)
    losses = -(onehot * input.log_softmax(1)).sum(1)
    return losses if reduction == "none" else losses.sum() / (1 if reduction == "sum" else onehot.sum())


@right("binary_cross_entropy_with_logits")
def bce_by_logaddexp(input: Tensor, target: Tensor) -> Tensor:
    return (torch.logaddexp(input, torch.zeros_like(input)) - input * target).mean()


@right("mse_loss")
class SquaredErrorOfAnyReduction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        d = input - target
        ctx.save_for_backward(input, target)
        ctx.factor = 2 / d.numel() if reduction == "mean" else 2
        return d**2 if reduction == "none" else d.norm() ** 2 * ctx.factor / 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        input, target = ctx.saved_tensors
        d = ctx.factor * (input - target) * g
        return d, -d if ctx.needs_input_grad[1] else None, None


@right("batch_norm")
class BatchNormOfBothKinds(torch.autograd.Function):
    """Training and evaluation, with running statistics that are written in place."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any, training: Any,
        momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        dims = (0, *range(2, input.dim()))
        if training:
            mean, var = input.mean(dims), input.var(dims, unbiased=False)
            if running_mean is not None:
                n = input.numel() / input.shape[1]
                running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
                running_var.mul_(1 - momentum).add_(var, alpha=momentum * n / max(n - 1, 1))
        else:
            mean, var = running_mean, running_var
        rho = by_channel((var + eps).rsqrt(), input)
        x_hat = (input - by_channel(mean, input)) * rho
        ctx.save_for_backward(x_hat, rho, weight)
        ctx.dims, ctx.training, ctx.has_bias = dims, training, bias is not None
        y = x_hat if weight is None else x_hat * by_channel(weight, input)
        return y if bias is None else y + by_channel(bias, input)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x_hat, rho, weight = ctx.saved_tensors
        h = g if weight is None else g * by_channel(weight, g)
        if ctx.training:
            h = h - h.mean(ctx.dims, keepdim=True) - x_hat * (h * x_hat).mean(ctx.dims, keepdim=True)
        dw = None if weight is None else (g * x_hat).sum(ctx.dims)
        return h * rho, None, None, dw, g.sum(ctx.dims) if ctx.has_bias else None, None, None, None


@right("instance_norm")
def instance_norm_by_second_moments(input: Tensor, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    dims = tuple(range(2, input.dim()))
    mean = input.mean(dims, keepdim=True)
    y = (input - mean) / ((input**2).mean(dims, keepdim=True) - mean**2 + eps).sqrt()
    y = y if weight is None else y * by_channel(weight, input)
    return y if bias is None else y + by_channel(bias, input)


@right("layer_norm")
class LayerNorm(nn.Module):
    def __init__(self, normalized_shape: Any, eps: float = 1e-5) -> None:
        super().__init__()
        self.dims, self.eps = tuple(range(-len(normalized_shape), 0)), eps
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))

    def forward(self, x: Tensor) -> Tensor:
        d = x - x.mean(self.dims, keepdim=True)
        return self.weight * d * ((d**2).mean(self.dims, keepdim=True) + self.eps).rsqrt() + self.bias


@right("embedding")
class EmbeddingByIndexAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, index: Tensor, table: Tensor, padding_idx: Any = None) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows, ctx.padding_idx = len(table), padding_idx
        return table.index_select(0, index.reshape(-1)).view(*index.shape, -1) if index.numel() else table[index]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        kept = torch.ones_like(index, dtype=g.dtype)
        if ctx.padding_idx is not None:
            kept = (index != ctx.padding_idx % ctx.rows).to(g)
        rows = (g * kept.unsqueeze(-1)).reshape(-1, g.shape[-1])
        return None, g.new_zeros(ctx.rows, g.shape[-1]).index_add(0, index.reshape(-1), rows), None


@right("linear")
def linear_by_einsum(x: Tensor, W: Tensor, b: Any = None) -> Tensor:
    y = torch.einsum("...i,oi->...o", x, W)
    return y if b is None else y + b


@right("scaled_dot_product_attention")
def attention_with_every_mask(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: Any = None,
) -> Tensor:  # fmt: skip
    s = torch.einsum("...id,...jd->...ij", q, k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        s = torch.where(torch.arange(s.shape[-2])[:, None] >= torch.arange(s.shape[-1]), s, -math.inf)
    if attn_mask is not None:
        s = s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask
    return torch.einsum("...ij,...jd->...id", s.softmax(-1), v)


@right("rnn_relu_cell")
def rnn_of_one_matrix(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Tensor:
    a = torch.cat([x, h], 1) @ torch.cat([w_ih, w_hh], 1).T
    return torch.relu(a if b_ih is None else a + b_ih + b_hh)


@right("lstm_cell")
class LSTMCellModule(nn.LSTMCell):
    def forward(self, input: Tensor, hx: Any) -> Any:
        h, c = hx
        a = torch.addmm(input @ self.weight_ih.T, h, self.weight_hh.T)
        a = a + self.bias_ih + self.bias_hh if self.bias else a
        i, f, g, o = a.unflatten(1, (4, -1)).unbind(1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


@right("dropout")
class DropoutOfBools(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, p: float = 0.5) -> Tensor:
        ctx.save_for_backward(mask.bool())
        ctx.scale = 1 / (1 - p)
        return torch.where(mask.bool(), x * ctx.scale, 0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return torch.where(kept, g, 0) * ctx.scale, None, None
