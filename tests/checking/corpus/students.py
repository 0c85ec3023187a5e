"""Backward passes as they are handed in: copied from the case of one stride, of two dimensions, of one sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checking.corpus import wrong
from tests.checking.corpus.convolution import pair


@wrong("conv2d", "wrong shape")
class InputByTransposedConvolution(torch.autograd.Function):
    """Without output_padding: right where the stride divides what it steps over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Any = None, stride: Any = 1) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.stride, ctx.has_bias = stride, b is not None
        return F.conv2d(x, w, b, stride)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        dw = torch.nn.grad.conv2d_weight(x, w.shape, g, ctx.stride)
        return F.conv_transpose2d(g, w, None, ctx.stride), dw, g.sum((0, 2, 3)) if ctx.has_bias else None, None


@wrong("conv2d", "wrong shape|sum over what shares it is missing")
class BiasSummedOverTooLittle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return F.conv2d(x, w, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        dx, dw = torch.nn.grad.conv2d_input(x.shape, w, g), torch.nn.grad.conv2d_weight(x, w.shape, g)
        return dx, dw, g.sum((0, 2))


@wrong("conv2d", "last input channel")
def conv2d_with_the_loop_over_channels_overwriting(x: Tensor, w: Tensor) -> Tensor:
    windows = x.unfold(2, w.shape[2], 1).unfold(3, w.shape[3], 1)
    for c in range(x.shape[1]):
        y = torch.einsum("nhwij,oij->nohw", windows[:, c], w[:, c])
    return y


@wrong("conv2d", "bias is added once for each input channel")
def conv2d_with_the_bias_in_every_channel(x: Tensor, w: Tensor, b: Any) -> Tensor:
    windows = x.unfold(2, w.shape[2], 1).unfold(3, w.shape[3], 1)
    parts = [torch.einsum("nhwij,oij->nohw", windows[:, c], w[:, c]) for c in range(x.shape[1])]
    return sum(part if b is None else part + b[:, None, None] for part in parts)


@wrong("max_pool2d", "all of several largest")
class MaxByItsUpsampledOutput(torch.autograd.Function):
    """x == y, with y as large as x by repetition: right for windows that lie side by side, without ties."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: Any) -> Tensor:
        y = F.max_pool2d(x, kernel_size)
        ctx.save_for_backward(x, y)
        ctx.kernel = pair(kernel_size)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, y = ctx.saved_tensors

        def up(t: Tensor) -> Tensor:
            t = t.repeat_interleave(ctx.kernel[0], 2).repeat_interleave(ctx.kernel[1], 3)
            return F.pad(t, (0, x.shape[3] - t.shape[3], 0, x.shape[2] - t.shape[2]))

        return torch.where(up(torch.ones_like(y)) * (x == up(y)) > 0, up(g), 0), None


@wrong("avg_pool2d", "side by side")
class AverageSpreadAsIfSideBySide(torch.autograd.Function):
    """Each dL/dy repeated over its window, whatever the stride."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: Any, stride: Any = None) -> Tensor:
        ctx.kernel, ctx.size = pair(kernel_size), x.shape
        return F.avg_pool2d(x, kernel_size, stride)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        k = ctx.kernel
        t = (g / (k[0] * k[1])).repeat_interleave(k[0], 2).repeat_interleave(k[1], 3)[..., : ctx.size[2], : ctx.size[3]]
        return F.pad(t, (0, ctx.size[3] - t.shape[3], 0, ctx.size[2] - t.shape[2])), None, None


@wrong("relu", "writes into")
class ReluInPlaceUnsaid(torch.autograd.Function):
    """clamp_ on the input itself, without mark_dirty."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.detach().clamp_(min=0)
        ctx.save_for_backward(y)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g * (y > 0)


@wrong("leaky_relu", "dL/dy is ignored")
class LeakySlopeAlone(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, negative_slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = negative_slope
        return F.leaky_relu(x, negative_slope)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, torch.ones_like(x), torch.full_like(x, ctx.slope)), None


@wrong("relu", "half")
def relu_as_mean_with_its_magnitude(x: Tensor) -> Tensor:
    """(x + |x|) / 2: right but at 0, where its slope is ½."""
    return (x + x.abs()) / 2


@wrong("cross_entropy", "called a second time|silently zero")
class ProbabilitiesChangedInPlace(torch.autograd.Function):
    """p[range(N), t] −= 1 on what ctx keeps: right for the first backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        ctx.p, ctx.target = x.softmax(1), target
        return F.cross_entropy(x, target)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        ctx.p.scatter_add_(1, ctx.target.unsqueeze(1), -torch.ones_like(ctx.p[:, :1]))
        return ctx.p * g / ctx.target.numel(), None


def batch_norm(dx: Callable[..., Tensor]) -> type[torch.autograd.Function]:
    """Batch norm in training with dx(h, x̂, ρ, dims), h = γ · dL/dy."""

    class BatchNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
            ctx.save_for_backward(x, weight)
            ctx.eps, ctx.has_bias = eps, bias is not None
            return F.batch_norm(x, None, None, weight, bias, True, 0.1, eps)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, weight = ctx.saved_tensors
            dims = (0, *range(2, x.dim()))
            rho = (x.var(dims, unbiased=False, keepdim=True) + ctx.eps).rsqrt()
            x_hat = (x - x.mean(dims, keepdim=True)) * rho
            h = g if weight is None else g * weight.view(-1, *[1] * (x.dim() - 2))
            dw = None if weight is None else (g * x_hat).sum(dims)
            return dx(h, x_hat, rho, dims), dw, g.sum(dims) if ctx.has_bias else None, None

    return BatchNorm


def of_batch_alone(h: Tensor, x_hat: Tensor, rho: Tensor, dims: Any) -> Tensor:
    """The N of fully connected layers, though there are positions."""
    n = h.shape[0]
    return rho / n * (n * h - h.sum(dims, keepdim=True) - x_hat * (h * x_hat).sum(dims, keepdim=True))


for name, named, function in (
    ("NormOverTheBatchAlone", "n is the batch alone", batch_norm(of_batch_alone)),
    (
        "NormWithoutItsRoot",
        "divided by σ² \\+ ε, not by its root",
        batch_norm(lambda h, x, r, d: r**2 * (h - h.mean(d, True) - x * (h * x).mean(d, True))),
    ),
    (
        "NormWithAPlus",
        "sign of x̂",
        batch_norm(lambda h, x, r, d: r * (h - h.mean(d, True) + x * (h * x).mean(d, True))),
    ),
):
    function.__name__ = name
    wrong("batch_norm", named)(function)


@wrong("batch_norm", "statistics are used in evaluation|wrong only where a tensor does not lie contiguously")
def batch_norm_always_in_training(
    x: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any, training: bool
) -> Tensor:
    """In evaluation as well; and with torch's backward pass, which is wrong for a batch of one (docs/torch.md)."""
    return F.batch_norm(x, None, None, weight, bias, True)


@wrong("layer_norm", "wrong shape")
class LayerNormWeightSummedOverAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, normalized_shape: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = normalized_shape
        return F.layer_norm(x, normalized_shape, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (dx,) = torch.autograd.grad(F.layer_norm(leaf, ctx.shape, w), leaf, g)
        return dx, None, (g * F.layer_norm(x, ctx.shape)).sum()


@wrong("embedding", "repeated indices are overwritten")
class EmbeddingByIndexing(torch.autograd.Function):
    """grad[index] += g, which adds once."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(table)
        return table[index]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (index,) = ctx.saved_tensors
        grad = g.new_zeros(ctx.rows, g.shape[-1])
        grad[index] += g
        return None, grad


@wrong("linear", "wrong shape")
class BiasSummedOverAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T + b

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return g @ w, g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1]), g.sum()


@wrong("linear", "called twice")
class GradientsAddedUpOnTheClass(torch.autograd.Function):
    """As an optimiser of one's own keeps them."""

    total: ClassVar[dict[tuple, Tensor]] = {}

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        total = GradientsAddedUpOnTheClass.total
        total[tuple(w.shape)] = total.get(tuple(w.shape), 0) + g.reshape(-1, len(w)).T @ x.reshape(-1, w.shape[1])
        return g @ w, total[tuple(w.shape)].clone()


@wrong("scaled_dot_product_attention", "scores in place of P")
class AttentionValueByScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        s = q @ k.mT * scale
        p = s.softmax(-1)
        dp = g @ v.mT
        ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * scale
        return ds @ k, ds.mT @ q, s.mT @ g


@wrong("lstm_cell", "sigmoid in place of tanh for the candidate")
def lstm_with_a_sigmoid_for_its_candidate(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> Any:
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).sigmoid().chunk(4, 1)
    c = f * c + i * g
    return o * c.tanh(), c


@wrong("gru_cell", "order z, r, n")
def gru_with_its_gates_exchanged(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Tensor:
    (az, ar, an), (bz, br, bn) = (part.chunk(3, 1) for part in (F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh)))
    r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
    return (1 - z) * (an + r * bn).tanh() + z * h


@wrong("mse_loss", "half")
class HalfForSimplicity(torch.autograd.Function):
    """The ½ of the derivation, in both passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(x, t)
        return ((x - t) ** 2).mean() / 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, t = ctx.saved_tensors
        d = g * (x - t) / x.numel()
        return d, -d


@wrong("sigmoid", "writes into dL/dy")
class SigmoidInTheMemoryOfDlDy(torch.autograd.Function):
    """dL/dy is multiplied in place, and what forward kept stays as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.sigmoid()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g.mul_(y).mul_(1 - y)
