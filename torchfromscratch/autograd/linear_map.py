"""Linear maps and their transposes: the chain rule of all that is linear, stated once.

For a real y = A x,

    dL/dx = Aᵀ dL/dy        A carries a tangent of x        (Aᵀ)ᵀ = A

so that derivatives of any order stay within the pair of A and Aᵀ. A layer that is linear is a row: its name, the map,
and the transpose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, map_over_batch, restore, save

Map = Callable[..., Tensor]

# Every linear Function by its name. In a backward pass, torch.compile finds a Function in a global, in a closure not.
LINEAR: dict[str, Map] = {}


def linear_pair(
    name: str,
    apply: Map,
    transpose: Map,
    *,
    saves: int = 0,
    remember: Callable[..., tuple] | None = None,
    per_sample: bool = False,
) -> tuple[Map, Map]:
    """The Functions A(x, *constants) and Aᵀ(g, *constants, *remember(x, *constants)), each the other's derivative."""
    count, name_of_transpose = _count_constants(apply), f"{name}Transpose"

    def apply_transpose(g: Tensor, *constants: Any) -> Tensor:
        return LINEAR[name_of_transpose](g, *constants)

    def apply_again(g: Tensor, *constants: Any) -> Tensor:
        return LINEAR[name](g, *constants[:count])

    forward = linear_map(name, apply, apply_transpose, saves=saves, remember=remember, per_sample=per_sample)
    backward = linear_map(name_of_transpose, transpose, apply_again, saves=saves, per_sample=per_sample)
    return forward, backward


def linear_map(
    name: str,
    apply: Map,
    transpose: Map | None = None,
    *,
    saves: int = 0,
    remember: Callable[..., tuple] | None = None,
    per_sample: bool = False,
) -> Map:
    """The Function A(x, *constants), whose derivative is Aᵀ(g, *constants, *remember(x, *constants)).

    Autograd saves the first `saves` constants, which are tensors. `remember` returns what Aᵀ must know of x, such as
    its size. A map `per_sample` treats each sample of x and of the saved tensors alike: vmap folds the mapped
    dimension into the batch. Without a `transpose` the map is symmetric: its own.
    """
    count = _count_constants(apply)

    class LinearMap(Function):
        forward = staticmethod(apply)

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple:
            tensors = restore(ctx) if saves else ()
            transpose_map = transpose or LINEAR[name]
            return transpose_map(grad_output, *tensors, *ctx.constants), *[None] * count

        # ---------------- torch's side: what is saved, vmap, forward mode

        generate_vmap_rule = not per_sample

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            ctx.constants = inputs[1 + saves :] if remember is None else (*inputs[1 + saves :], *remember(*inputs))
            if saves:
                save(ctx, inputs[1 : 1 + saves])

        if per_sample:

            @staticmethod
            def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
                tensors, constants = args[: 1 + saves], args[1 + saves :]

                def of_batch(*folded: Tensor) -> Tensor:
                    return LINEAR[name](*folded, *constants)

                return map_over_batch(of_batch, info.batch_size, in_dims[: len(tensors)], *tensors)

        @staticmethod
        def jvp(ctx: Any, x_t: Tensor, *_: None) -> Tensor:
            tensors = restore(ctx) if saves else ()
            return LINEAR[name](x_t, *tensors, *ctx.constants[: count - saves])

    LINEAR[name] = differentiable(type(name, (LinearMap,), {}))
    return LINEAR[name]


def _count_constants(apply: Map) -> int:
    return len(inspect.signature(apply).parameters) - 1
