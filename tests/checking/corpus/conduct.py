"""Right formulas in Functions that misbehave."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tests.checking.corpus import wrong


class Relu(torch.autograd.Function):
    """Right, for others to spoil."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * (x > 0)


@wrong("relu", "writes into dL/dy|wrong only where a tensor does not lie contiguously")
class WritesIntoDlDy(Relu):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        g[x <= 0] = 0
        return g.clone()


@wrong("relu", "writes into input")
class WritesIntoItsInput(Relu):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input > 0)
        input.data.clamp_(min=0)
        return input.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return g * mask


@wrong("relu", "silently zero")
class SecondDerivativeOfNothing(torch.autograd.Function):
    """A square, whose derivative's derivative gets lost: the values saved are detached."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g.detach() * (x > 0)


@wrong("sigmoid", "silently zero")
class SigmoidThroughData(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        y = input.sigmoid()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        y = y.data
        return g * y * (1 - y)


@wrong("tanh", "silently zero")
class TanhThroughNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        y = torch.from_numpy(np.array(np.tanh(input.detach().numpy())))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.from_numpy(np.array(g.detach().numpy() * (1 - y.detach().numpy() ** 2)))


@wrong("relu", "kept as ctx.input")
class KeepsItsInputOnCtx(Relu):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.input = input
        return input.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * (ctx.input > 0)


@wrong("sigmoid", "kept as ctx.y")
class KeepsItsOutputOnCtx(torch.autograd.Function):
    """The output holds the graph that holds ctx: the memory is never freed."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.y = input.sigmoid()
        return ctx.y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.y * (1 - ctx.y)


@wrong("relu", "does not lie contiguously")
class ReadsMemoryInOrder(Relu):
    """as_strided takes any tensor for a contiguous one."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        flat = torch.as_strided(g, (min(g.numel(), g.untyped_storage().nbytes() // 8),), (1,), 0)
        if flat.numel() < g.numel():
            return g * (x > 0)
        return flat.view(g.shape) * (x > 0)


@wrong("relu", "wrong shape")
class GradientOfAnotherShape(Relu):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (g * (x > 0)).reshape(-1)


@wrong("tanh", "silently zero")
class GradientOfAnotherType(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        y = input.tanh()
        ctx.save_for_backward(y)
        return y.float()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return g.float() * (1 - y.float() ** 2)


@wrong("linear", "no gradient: None")
class NoGradientForItsWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return input @ weight.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return g @ weight, None


@wrong("relu", "called before")
class RemembersTheFirstMask(torch.autograd.Function):
    """Kept on the class for speed."""

    masks: ClassVar[dict[tuple, Tensor]] = {}

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.key = tuple(input.shape)
        RemembersTheFirstMask.masks.setdefault(ctx.key, input > 0)
        ctx.save_for_backward(input)
        return input.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * RemembersTheFirstMask.masks[ctx.key]


@wrong("relu", "called twice")
class RoundsAtRandom(Relu):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * (x > 0) * (1 + 0.01 * torch.rand_like(g))


@wrong("relu", "memory of input")
class AnswersWithItsInput(Relu):
    """The output is the input's memory where there is nothing to clamp."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.view(input.shape) if (input >= 0).all() else input.clamp(min=0)


@wrong("relu", "forward mode")
class WrongInForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.clamp(min=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return g * (x > 0)

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return t * (x < 0)


@wrong("softmax", "vmap")
class WrongUnderVmap(torch.autograd.Function):
    """`dim` counts other dimensions where one is mapped in front."""

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return input.softmax(dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.dim = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return y * (g - (g * y).sum(ctx.dim, keepdim=True)), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, dim: int) -> Any:
        return WrongUnderVmap.apply(input.movedim(in_dims[0], 0), dim), 0
