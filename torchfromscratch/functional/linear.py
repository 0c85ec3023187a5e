"""The fully connected layer and the bilinear one."""

from __future__ import annotations

import math

from torch import Tensor

from torchfromscratch.autograd import linear as autograd
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.buffers import no_view

__all__ = ["bilinear", "linear"]


@autocast(cpu="lower", cuda="lower")
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x wᵀ + b, with dL/dx = dL/dy w, dL/dw = (dL/dy)ᵀ x and dL/db = Σ dL/dy.

    Shapes: input (*, in_features), weight (out_features, in_features) or (in_features), bias
    (out_features) → (*, out_features) or (*).
    Raises RuntimeError where shapes or types do not fit. Source: lecture notes, "Fully Connected Layer".
    """
    if input.dim() == 0 or weight.dim() not in (1, 2):
        raise RuntimeError(
            "linear needs an input of at least 1 dimension and a weight of 1 or 2, "
            f"but got sizes {list(input.shape)} and {list(weight.shape)}"
        )
    if input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"linear: input {list(input.shape)} has {input.shape[-1]} features in its last dimension, "
            f"but weight {list(weight.shape)} takes {weight.shape[-1]}"
        )
    if input.dtype != weight.dtype or (bias is not None and bias.dtype != weight.dtype):
        types = [str(t.dtype) for t in (input, weight, bias) if t is not None]
        raise RuntimeError(f"linear: input, weight and bias must have the same dtype, but got {', '.join(types)}")
    *batch, in_features = input.shape
    rows = input if len(batch) == 1 else input.reshape(math.prod(batch), in_features)
    if weight.dim() == 1:
        output = autograd.linear(rows, weight.unsqueeze(0), None).reshape(batch)
        return output if bias is None else output + bias
    shape = (*batch, weight.shape[0])
    if bias is None:
        return no_view(autograd.linear(rows, weight, None), shape)
    if bias.shape == weight.shape[:1]:
        output = autograd.linear(rows, weight, bias)
        return output if len(batch) == 1 else output.view(shape)
    return autograd.linear(rows, weight, None).view(shape) + bias


@autocast(cpu="as given", cuda="widest")
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[o] = Σ_ij x₁[i] · w[o, i, j] · x₂[j] + b[o], with dL/dx₁[i] = Σ_oj dL/dy[o] · w[o, i, j] · x₂[j].

    dL/dw[o, i, j] = Σ dL/dy[o] · x₁[i] · x₂[j]. Shapes: input1 (*, I), input2 (*, J), weight (O, I, J), bias (O)
    → (*, O). Raises RuntimeError where shapes or types do not fit.
    """
    if input1.dim() == 0 or input1.shape[:-1] != input2.shape[:-1] or input1.dim() != input2.dim():
        raise RuntimeError(
            "bilinear(): input batch dimensions do not match: "
            f"got {list(input1.shape)} and {list(input2.shape)}, which may differ in the last dimension alone"
        )
    if weight.dim() != 3 or weight.shape[1:] != (input1.shape[-1], input2.shape[-1]):
        raise RuntimeError(
            f"bilinear(): inputs of {input1.shape[-1]} and {input2.shape[-1]} features need a weight (out_features, "
            f"{input1.shape[-1]}, {input2.shape[-1]}), but got {list(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(
            f"bilinear(): bias size does not match weight size: got {list(bias.shape)}, expected {weight.shape[0]}"
        )
    given = [tensor for tensor in (input1, input2, weight, bias) if tensor is not None]
    if any([tensor.dtype != weight.dtype for tensor in given]):
        types = ", ".join(str(tensor.dtype) for tensor in given)
        raise RuntimeError(f"bilinear(): all tensors must have the same dtype, but got {types}")
    batch = input1.shape[:-1]
    count = math.prod(batch)
    rows = [tensor.reshape(count, tensor.shape[-1]) for tensor in (input1, input2)]
    output = no_view(autograd.bilinear(*rows, weight), (*batch, weight.shape[0]))
    return output if bias is None else output + bias
