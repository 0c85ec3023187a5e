"""Right implementations in every style: none of them may be accused."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.checking.corpus import right
from tests.checking.corpus.convolution import conv2d, correlate, pair
from tests.checking.corpus.loss import difference
from tests.checking.corpus.normalization import batch_norm
from tests.checking.corpus.pooling import average, max_pool, one_winner
from tests.checking.corpus.sequence import linear

right("conv2d")(conv2d())
right("max_pool2d")(max_pool(lambda x, g: g * one_winner(x)))
right("avg_pool2d")(average(lambda g, k: g / (k[0] * k[1])))
right("batch_norm")(batch_norm())
right("linear")(linear())


@right("conv2d")
def conv2d_by_unfold(input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0) -> Tensor:
    columns = F.unfold(input, weight.shape[2:], padding=padding, stride=stride)
    s, p = pair(stride), pair(padding)
    size = [(input.shape[d + 2] + 2 * p[d] - weight.shape[d + 2]) // s[d] + 1 for d in (0, 1)]
    y = (weight.flatten(1) @ columns).unflatten(2, size)
    return y if bias is None else y + bias[:, None, None]


@right("conv2d")
def conv2d_by_einsum(input: Tensor, weight: Tensor) -> Tensor:
    windows = input.unfold(2, weight.shape[2], 1).unfold(3, weight.shape[3], 1)
    return torch.einsum("nchwij,ocij->nohw", windows, weight)


@right("conv2d")
def conv2d_tap_by_tap(input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any) -> Tensor:
    y = correlate(input, weight, pair(stride), pair(padding))
    return y if bias is None else y + bias[:, None, None]


@right("conv2d")
def conv2d_of_torch(input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0) -> Tensor:
    return F.conv2d(input, weight, bias, stride, padding)


@right("conv1d")
def conv1d_in_the_frequency_domain(input: Tensor, weight: Tensor) -> Tensor:
    n = input.shape[2]
    product = torch.einsum("ncf,ocf->nof", torch.fft.rfft(input, n), torch.fft.rfft(weight, n).conj())
    return torch.fft.irfft(product, n)[..., : n - weight.shape[2] + 1]


@right("conv_transpose2d")
def transposed_as_a_gradient(input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any) -> Tensor:
    s, p = pair(stride), pair(padding)
    size = [(n - 1) * s[d] - 2 * p[d] + weight.shape[d + 2] for d, n in enumerate(input.shape[2:])]
    y = torch.nn.grad.conv2d_input((len(input), weight.shape[1], *size), weight, input, stride, padding)
    return y if bias is None else y + bias[:, None, None]


@right("max_pool2d")
class MaxPoolByIndices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
        y, indices = F.max_pool2d(input, kernel_size, stride, padding, return_indices=True)
        ctx.save_for_backward(indices)
        ctx.size = input.shape
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        grad = g.new_zeros(*ctx.size[:2], math.prod(ctx.size[2:]))
        return grad.scatter_add(2, indices.flatten(2), g.flatten(2)).view(ctx.size), None, None, None


@right("adaptive_avg_pool2d")
def adaptive_by_matrices(input: Tensor, output_size: Any) -> Tensor:
    def matrix(n: int, m: int) -> Tensor:
        a = input.new_zeros(m, n)
        for i in range(m):
            begin, end = i * n // m, -(-(i + 1) * n // m)
            a[i, begin:end] = 1 / (end - begin)
        return a

    o = pair(output_size)
    return matrix(input.shape[2], o[0]) @ input @ matrix(input.shape[3], o[1]).T


@right("relu")
def relu_by_maximum(input: Tensor) -> Tensor:
    return torch.where(input > 0, input, 0)


@right("leaky_relu")
def leaky_relu_by_where(input: Tensor, negative_slope: float) -> Tensor:
    return torch.where(input > 0, input, negative_slope * input)


@right("sigmoid")
class SigmoidOfItsOutput(torch.autograd.Function):
    """In the new style, with a forward mode and a vmap of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-input))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g * y * (1 - y)

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return t * y * (1 - y)


@right("tanh")
class TanhOnce(torch.autograd.Function):
    """It says that it cannot be differentiated twice, which is no mistake."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        y = input.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


@right("softmax")
class SoftmaxByItsJacobian(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, dim: int) -> Tensor:
        y = input.softmax(dim)
        ctx.dim = dim
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        y, g = y.movedim(ctx.dim, -1), g.movedim(ctx.dim, -1)
        jacobian = torch.diag_embed(y) - y.unsqueeze(-1) * y.unsqueeze(-2)
        return (jacobian @ g.unsqueeze(-1)).squeeze(-1).movedim(-1, ctx.dim), None


@right("log_softmax")
def log_softmax_by_logsumexp(input: Tensor, dim: int) -> Tensor:
    return input - input.logsumexp(dim, keepdim=True)


@right("cross_entropy")
class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(input, target)
        return -input.log_softmax(1).gather(1, target.unsqueeze(1)).mean()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        z, t = ctx.saved_tensors
        return g * difference(z, t) / t.numel(), None


@right("cross_entropy")
def cross_entropy_of_torch(input: Tensor, target: Tensor, weight: Any = None) -> Tensor:
    return F.cross_entropy(input, target, weight)


@right("binary_cross_entropy")
def bce_by_its_definition(input: Tensor, target: Tensor) -> Tensor:
    return -(target * input.log() + (1 - target) * (1 - input).log()).mean()


@right("mse_loss")
def mse_by_mean(input: Tensor, target: Tensor) -> Tensor:
    return ((input - target) ** 2).mean()


@right("layer_norm")
def layer_norm_by_var_mean(input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    var, mean = torch.var_mean(input, tuple(range(-len(normalized_shape), 0)), unbiased=False, keepdim=True)
    y = (input - mean) * (var + eps).rsqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@right("group_norm")
def group_norm_by_reshape(input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float) -> Tensor:
    x = input.reshape(len(input), num_groups, -1)
    y = (x - x.mean(2, keepdim=True)) / (x.var(2, unbiased=False, keepdim=True) + eps).sqrt()
    y = y.reshape(input.shape)
    shape = (1, -1, *[1] * (input.dim() - 2))
    y = y if weight is None else y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


@right("embedding")
def embedding_by_one_hot(input: Tensor, weight: Tensor) -> Tensor:
    return F.one_hot(input, weight.shape[0]).to(weight) @ weight


@right("dropout")
def dropout_with_its_mask(input: Tensor, mask: Tensor, p: float) -> Tensor:
    return input * (mask / (1 - p))


@right("scaled_dot_product_attention")
def attention_row_by_row(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    rows = [
        torch.softmax((key @ q.unsqueeze(-1)).squeeze(-1) / math.sqrt(q.shape[-1]), -1).unsqueeze(-2) @ value
        for q in query.unbind(-2)
    ]
    return torch.cat(rows, -2)


@right("lstm_cell")
def lstm_by_plain_operations(
    input: Tensor, hx: Tensor, cx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> tuple[Tensor, Tensor]:
    i, f, g, o = (F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh)).chunk(4, 1)
    c = f.sigmoid() * cx + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@right("gru_cell")
def gru_by_plain_operations(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Tensor:
    (ar, az, an), (br, bz, bn) = (
        gates.chunk(3, 1) for gates in (F.linear(input, w_ih, b_ih), F.linear(hx, w_hh, b_hh))
    )
    r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
    return (1 - z) * (an + r * bn).tanh() + z * hx


@right("relu")
class ReluModule(nn.Module):
    """A class of modules, as it is handed over."""

    def forward(self, input: Tensor) -> Tensor:
        return input.clamp(min=0)


@right("linear")
class LinearInFloat32(torch.autograd.Function):
    """As precise as float32, whatever it is called with: to be told apart from a mistake."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return (input.float() @ weight.float().T).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = (saved.float() for saved in ctx.saved_tensors)
        grad_w = g.float().reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1])
        return (g.float() @ w).to(g.dtype), grad_w.to(g.dtype)
