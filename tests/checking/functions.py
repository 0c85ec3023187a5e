"""Functions as people write them, each right but for what its name says."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Conv2d(torch.autograd.Function):
    """Right: torch's own three convolutions."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.options, ctx.has_bias = (stride, padding), bias is not None
        return F.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    def grad_input(input: Tensor, weight: Tensor, grad_output: Tensor, *options: Any) -> Tensor:
        return torch.nn.grad.conv2d_input(input.shape, weight, grad_output, *options)

    @staticmethod
    def grad_weight(input: Tensor, weight: Tensor, grad_output: Tensor, *options: Any) -> Tensor:
        return torch.nn.grad.conv2d_weight(input, weight.shape, grad_output, *options)

    @staticmethod
    def grad_bias(grad_output: Tensor) -> Tensor:
        return grad_output.sum((0, 2, 3))

    @classmethod
    def gradients(cls, ctx: Any, grad_output: Tensor) -> tuple:
        given = (*ctx.saved_tensors, grad_output, *ctx.options)
        bias = cls.grad_bias(grad_output) if ctx.has_bias else None
        return cls.grad_input(*given), cls.grad_weight(*given), bias, None, None

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return Conv2d.gradients(ctx, grad_output)


class KernelNotRotated(Conv2d):
    @staticmethod
    def grad_input(input: Tensor, weight: Tensor, grad_output: Tensor, *options: Any) -> Tensor:
        return Conv2d.grad_input(input, weight.flip(2, 3), grad_output, *options)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return KernelNotRotated.gradients(ctx, grad_output)


class TwoMistakes(Conv2d):
    @staticmethod
    def grad_weight(input: Tensor, weight: Tensor, grad_output: Tensor, *options: Any) -> Tensor:
        return Conv2d.grad_weight(input, weight, grad_output, *options).flip(2, 3)

    @staticmethod
    def grad_bias(grad_output: Tensor) -> Tensor:
        return grad_output.mean((0, 2, 3))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return TwoMistakes.gradients(ctx, grad_output)


class ReLU(torch.autograd.Function):
    """Right."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * (ctx.saved_tensors[0] > 0)


class WritesIntoGradOutput(ReLU):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output.mul_(ctx.saved_tensors[0] > 0)


class WritesIntoInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input.clone())
        return input.clamp_(min=0).clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * (ctx.saved_tensors[0] > 0)


class ReturnsAView(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, mask: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.p = p
        return input.mul(mask / (1 - p)).view_as(input) if mask.eq(0).any() else input.view_as(input).div(1 - p)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return grad_output * mask / (1 - ctx.p), None, None


class ReturnsItsInput(ReLU):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.view_as(input) if (input >= 0).all() else input.clamp(min=0)


class KeepsInputOnCtx(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.input = input
        return input.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return grad_output * (ctx.input > 0)


class NoGradient(ReLU):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return None


class NarrowGradient(ReLU):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        return (grad_output * (ctx.saved_tensors[0] > 0)).float()


class NeedsContiguous(ReLU):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.view(-1).clamp(min=0).view(input.shape)


class Counts(ReLU):
    calls = 0

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        Counts.calls += 1
        return grad_output * (ctx.saved_tensors[0] > 0) * Counts.calls


class Sigmoid(torch.autograd.Function):
    """Right."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        output = input.sigmoid()
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (output,) = ctx.saved_tensors
        return grad_output * output * (1 - output)


class DetachedSigmoid(Sigmoid):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        output = ctx.saved_tensors[0].detach()
        return grad_output * output * (1 - output)


class OnceSigmoid(Sigmoid):
    """Right: it refuses what it does not have."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        output = ctx.saved_tensors[0]
        return grad_output * output * (1 - output)


class Tanh(torch.autograd.Function):
    """Right, with forward mode and vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        (output,) = ctx.saved_tensors
        return grad_output * (1 - output * output)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor) -> Any:
        (output,) = ctx.saved_tensors
        return input_t * (1 - output * output)


class WrongTangent(Tanh):
    @staticmethod
    def jvp(ctx: Any, input_t: Tensor) -> Any:
        return input_t * (1 - ctx.saved_tensors[0])


class WrongVmap(Tanh):
    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: tuple, input: Tensor) -> Any:
        return WrongVmap.apply(input.flip(in_dims[0])), in_dims[0]


class Linear(torch.autograd.Function):
    """Right, but computes gradients that nobody asked for."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if input.dim() != 2 or bias is None:
            raise NotImplementedError("a batch of rows and a bias")
        ctx.save_for_backward(input, weight)
        return input @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        return grad_output @ weight, grad_output.T @ input, grad_output.sum(0)


class WrongShape(Linear):
    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        return grad_output @ weight, (grad_output.T @ input).T.flatten(), grad_output.sum(0)
