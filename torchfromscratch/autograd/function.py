"""What every hand-written layer's Function has in common.

A Function states forward and backward. Below a rule it states what else torch asks for, in this order: setup_context,
vmap where torch cannot generate the rule, jvp. `differentiable` turns a Function into a plain function of tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchfromscratch import _torch_private as private
from torchfromscratch.kernels.execution import (
    is_any_autocast_enabled,
    is_autocasting,
    is_compiling,
    is_differentiating,
    is_exporting,
    is_forward_mode,
    is_jit_tracing,
    is_transforming,
    needs_gradient,
    running_transform,
)


class Function(torch.autograd.Function):
    """A layer as torch.autograd sees it: y = f(x) with its own dL/dx, under every transform of torch.func."""

    generate_vmap_rule = True


class OpaqueTuple(tuple):
    """A tuple that torch.func takes for one argument. Forward mode inside vmap miscounts plain tuples."""


class PrimalContext:
    """The ctx of a `jvp`, whose saved tensors are stripped of their tangents."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        tensors = self.ctx.saved_tensors
        return tuple(None if tensor is None else forward_ad.unpack_dual(tensor).primal for tensor in tensors)


def differentiable(function: type[Function]) -> Callable[..., Any]:
    """`function.apply`, made fit for every mode of torch.

    Under torch.compile it applies a subclass without `jvp`, as the compiler traces no Function that has one, and the
    forward pass alone where no gradient is asked for: there, Dynamo hands a forward of several arguments its ctx, too.
    torch.export gets that as well: a Function comes out of a strict one without a gradient.
    Where it traces a transform of torch.func, it gets the forward pass, whose operations the transform differentiates:
    of a Function, Dynamo tells wrongly what needs a gradient if autograd asks for others, which came out as zeros, and
    it maps none. Under torch.jit.trace it runs the forward pass: the tracer cannot save a Function, nor hand it a tuple
    of sizes, which are tensors to it. Where nobody differentiates, as in most backward passes, it runs the forward
    pass, too. Where autograd differentiates and torch.func does not, forward and setup_context are one step:
    to call two, torch reads a signature, which takes longer than a ReLU. `torchfromscratch.functional` makes
    autocast's casts; here arithmetic keeps the types it gets.
    """
    compute_gradient, compute_tangent = function.backward, function.jvp

    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        if is_any_autocast_enabled():
            return _without_autocast(compute_gradient, ctx, *grad_outputs)
        return compute_gradient(ctx, *grad_outputs)

    def jvp(ctx: Any, *tangents: Any) -> Any:
        # torch calls it with forward mode off, and the tangent of a tangent, as in jvp of jvp, would be zero
        with private.set_forward_mode(True):
            return compute_tangent(PrimalContext(ctx), *tangents)

    function.backward = staticmethod(backward)  # type: ignore[method-assign]
    function.jvp = staticmethod(jvp)  # type: ignore[method-assign]
    traced: Any = type(
        function.__name__,
        (function,),
        {"forward": staticmethod(_with_own_outputs(function.forward)), "jvp": torch.autograd.Function.jvp},
    )

    def forward_with_context(ctx: Any, *args: Any) -> Any:
        output = function.forward(*args)
        function.setup_context(ctx, args, output)
        return output

    eager: Any = type(
        function.__name__,
        (function,),
        {
            "forward": staticmethod(forward_with_context),
            "setup_context": staticmethod(torch.autograd.Function.setup_context),
        },
    )

    def apply_transformed(*args: Any) -> Any:
        return function.apply(*[OpaqueTuple(arg) if isinstance(arg, (tuple, list)) else arg for arg in args])

    @functools.wraps(function, updated=())
    def apply(*args: Any) -> Any:
        if is_compiling():
            is_asked = needs_gradient(*[arg for arg in args if isinstance(arg, Tensor)])
            compute = function.forward if is_transforming() or is_exporting() or not is_asked else traced.apply
        elif is_jit_tracing() or not is_differentiating():
            compute = function.forward
        else:
            compute = eager.apply if running_transform() is None else apply_transformed
        return _without_autocast(compute, *args) if is_any_autocast_enabled() else compute(*args)

    return apply


def _with_own_outputs(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, no output of which is a tensor that an operation was given and returned.

    x.add_(1) returns one, and so does a cast to the type that x has: the compiler of torch 2.11 loses their gradients.
    The outputs are no views either: autograd forbids `x.relu_()`, as any change in place, of a view.
    """

    def as_own(output: Any) -> Any:
        return private.unsafe_view(output, output.shape) if isinstance(output, Tensor) else output

    @functools.wraps(forward)
    def call(*args: Any) -> Any:
        outputs = forward(*args)
        return as_own(outputs) if isinstance(outputs, Tensor) else tuple([as_own(output) for output in outputs])

    return call


def save(ctx: Any, tensors: Sequence[Tensor | None], needed: Sequence[bool] | None = None) -> None:
    """Saves the tensors that are `needed` for the gradients that somebody asks for, or all of them.

    A tensor that is not saved takes no memory until the backward pass, and may be changed in place before it. In
    forward mode all are saved, as tangents are functions of all.
    """
    forward_mode = is_forward_mode()
    if needed is not None and not forward_mode:
        tensors = [tensor if need else None for tensor, need in zip(tensors, needed, strict=True)]
    ctx.saved_count, ctx.saves_none = len(tensors), all([tensor is None for tensor in tensors])
    ctx.save_for_backward(*tensors)
    if forward_mode:
        ctx.save_for_forward(*tensors)


def restore(ctx: Any) -> tuple[Any, ...]:
    """The tensors given to `save`, with None for each that was not saved.

    Where none was saved, it does not ask torch for any: then backward may run twice without retain_graph.
    """
    return (None,) * ctx.saved_count if ctx.saves_none else ctx.saved_tensors


def bilinear_tangent(
    form: Callable[..., Tensor],
    given: tuple[Tensor, Tensor | None],
    tangents: tuple[Tensor | None, Tensor | None],
    *rest: Any,
) -> Tensor:
    """The tangent of `form(a, b, *rest)`, linear in a and in b: form(a_t, b) + form(a, b_t). None is a tangent of 0."""
    (a, b), (a_t, b_t) = given, tangents
    terms = [] if a_t is None else [form(a_t, b, *rest)]
    terms += [] if b_t is None else [form(a, b_t, *rest)]
    return functools.reduce(torch.add, terms)


def _without_autocast(compute: Callable[..., Any], *args: Any) -> Any:
    """`compute(*args)` with autocast's casts off, which may be on for some kind of device."""
    for arg in args:
        if isinstance(arg, Tensor):
            if not is_autocasting(arg.device.type):
                break
            with torch.autocast(arg.device.type, enabled=False):
                return compute(*args)
    return compute(*args)


def move_mapped_to_front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """`tensor` with its mapped dimension in front. One without is repeated `size` times."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def map_over_batch(function: Callable[..., Any], size: int, in_dims: tuple, *args: Any) -> tuple:
    """The vmap rule of a `function` of batches: the mapped dimension joins the batch."""
    folded = [
        move_mapped_to_front(arg, dim, size).flatten(0, 1) if isinstance(arg, Tensor) else arg
        for arg, dim in zip(args, in_dims, strict=True)
    ]
    outputs = function(*folded)
    if isinstance(outputs, Tensor):
        return outputs.unflatten(0, (size, -1)), 0
    return tuple(output.unflatten(0, (size, -1)) for output in outputs), (0,) * len(outputs)
