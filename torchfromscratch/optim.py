"""SGD, Adam and AdamW: torch.optim's interface, every update rule written by hand.

    from torchfromscratch import optim

Constructors, parameter groups, hooks and state_dict are torch.optim's own, so schedulers and checkpoints
work in both directions. The updates are arithmetic in place: one parameter after the other or, with `foreach` and by
default on a GPU, one operation of all parameters after the other, which there are few launches. torch.optim's `fused`
is accepted and makes no difference. Schedulers and averages of weights are torch.optim's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer as Optimizer
from torch.optim import lr_scheduler as lr_scheduler
from torch.optim import swa_utils as swa_utils

from torchfromscratch import _torch_private as private

__all__ = ["SGD", "Adam", "AdamW"]


def __getattr__(name: str) -> Any:
    if hasattr(torch.optim, name) and not name.startswith("_"):
        raise AttributeError(
            f"torchfromscratch.optim has no hand-written {name}; torch.optim.{name} trains hand-written layers as well"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _ByHand(Optimizer):
    """The walk over all parameters with a gradient; a subclass says how one of them, or all together, are updated."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter once; `closure`, if given, computes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            if not self._has_overflow():
                for group in self.param_groups:
                    self._update_group(group)
        return loss

    def _update_group(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        grads = [self._unscale(parameter.grad) for parameter in parameters]
        if parameters and _are_updated_together(parameters, grads, group):
            self._update_together(parameters, private.foreach_neg(grads) if group["maximize"] else grads, group)
            return
        for parameter, grad in zip(parameters, grads, strict=True):
            self._update(parameter, -grad if group["maximize"] else grad, group)

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _update_together(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """`_update` of each, one operation of all after the other."""
        raise NotImplementedError

    # torch.amp.GradScaler unscales for every optimiser but those with fused=True, where it leaves these two.

    def _has_overflow(self) -> bool:
        found_inf = getattr(self, "found_inf", None)
        return found_inf is not None and bool(found_inf)

    def _unscale(self, grad: Tensor) -> Tensor:
        grad_scale = getattr(self, "grad_scale", None)
        return grad if grad_scale is None else grad.div_(grad_scale)


class SGD(_ByHand, torch.optim.SGD):
    """Stochastic gradient descent with momentum, for the loss L and the gradient g = dL/dw + λ·w.

        w ← w − η·g                                         without momentum
        b ← μ·b + (1 − τ)·g,    w ← w − η·b                 momentum μ, dampening τ; at first b = g
        b ← μ·b + (1 − τ)·g,    w ← w − η·(g + μ·b)         nesterov

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the learning rate η, a number or a tensor of one element.
        momentum, dampening, weight_decay, nesterov: μ, τ, λ and the third rule.
        maximize: climb instead, along −dL/dw.
        differentiable: let autograd see the update.

    Raises ValueError for a negative rate, momentum or decay, and for nesterov without momentum.

    Source: lecture notes, "Update W, b"; I. Sutskever et al., "On the importance of initialization and
    momentum in deep learning", 2013.
    """

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        grad = _with_decay(grad, parameter, group["weight_decay"])
        if momentum != 0:
            buffer = self.state[parameter].get("momentum_buffer")
            if buffer is None:
                buffer = self.state[parameter]["momentum_buffer"] = grad.detach().clone()
            else:
                buffer.mul_(momentum).add_(grad, alpha=1 - group["dampening"])
            grad = grad.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        lr = _scalar(group["lr"])
        if isinstance(lr, Tensor) and lr.requires_grad:
            parameter.addcmul_(grad, lr, value=-1)
        else:
            parameter.add_(grad, alpha=-lr)

    def _update_together(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if group["weight_decay"] != 0:
            grads = private.foreach_add(grads, parameters, alpha=group["weight_decay"])
        if momentum != 0:
            grads = self._with_momentum(parameters, grads, group)
        private.foreach_add_(parameters, grads, alpha=-group["lr"])

    def _with_momentum(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        buffers, old, new = [], [], []
        for parameter, grad in zip(parameters, grads, strict=True):
            buffer = self.state[parameter].get("momentum_buffer")
            if buffer is None:
                buffer = self.state[parameter]["momentum_buffer"] = grad.detach().clone()
            else:
                old.append(buffer)
                new.append(grad)
            buffers.append(buffer)
        if old:
            private.foreach_mul_(old, group["momentum"])
            private.foreach_add_(old, new, alpha=1 - group["dampening"])
        return private.foreach_add(grads, buffers, alpha=group["momentum"]) if group["nesterov"] else buffers


class _AdamStep(_ByHand):
    """The step that `Adam` describes, with the weight decay inside the gradient or decoupled from it."""

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("Adam needs dense gradients; for sparse ones there is torch.optim.SparseAdam")
        state = self.state[parameter]
        if not state:
            state.update(_zero_moments(parameter, group))
        state["step"] += 1
        # autograd wants what it saved unchanged when the next step writes over it
        kept = torch.clone if group["differentiable"] else torch.Tensor.detach

        lr = _scalar(group["lr"])
        if group.get("decoupled_weight_decay", isinstance(self, torch.optim.AdamW)):
            if group["weight_decay"] != 0:
                parameter.mul_(1 - lr * group["weight_decay"])
        else:
            grad = _with_decay(grad, parameter, group["weight_decay"])

        w, g, m, v = (_real(t) for t in (parameter, grad, state["exp_avg"], state["exp_avg_sq"]))
        beta1, beta2 = (_scalar(beta) for beta in group["betas"])
        m.lerp_(g, 1 - (beta1.to(m) if isinstance(beta1, Tensor) else beta1))
        if isinstance(beta2, Tensor) and beta2.requires_grad:
            v.lerp_(g.square(), 1 - beta2.to(v))
        else:
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        if group["amsgrad"]:
            largest = _real(state["max_exp_avg_sq"])
            v = largest.copy_(torch.maximum(kept(largest), kept(v)))

        in_graph = group["capturable"] or group["differentiable"]
        t = state["step"].clone() if in_graph else state["step"].item()
        step_size = lr / (1 - beta1**t)
        denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(group["eps"])
        if in_graph:
            w.sub_(step_size * (kept(m) / denominator))
        else:
            w.addcdiv_(m, denominator, value=-step_size)

    def _update_together(self, parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state.update(_zero_moments(parameter, group))
        private.foreach_add_([state["step"] for state in states], 1)
        lr, weight_decay = group["lr"], group["weight_decay"]
        if weight_decay != 0 and group.get("decoupled_weight_decay", isinstance(self, torch.optim.AdamW)):
            private.foreach_mul_(parameters, 1 - lr * weight_decay)
        elif weight_decay != 0:
            grads = private.foreach_add(grads, parameters, alpha=weight_decay)

        w, g = [_real(t) for t in parameters], [_real(t) for t in grads]
        m, v = [[_real(state[name]) for state in states] for name in ("exp_avg", "exp_avg_sq")]
        beta1, beta2 = group["betas"]
        private.foreach_lerp_(m, g, 1 - beta1)
        private.foreach_mul_(v, beta2)
        private.foreach_addcmul_(v, g, g, 1 - beta2)
        if group["amsgrad"]:
            largest = [_real(state["max_exp_avg_sq"]) for state in states]
            private.foreach_maximum_(largest, v)
            v = largest

        steps = [state["step"].item() for state in states]
        denominators = private.foreach_sqrt(v)
        private.foreach_div_(denominators, [(1 - beta2**t) ** 0.5 for t in steps])
        private.foreach_add_(denominators, group["eps"])
        private.foreach_addcdiv_(w, m, denominators, [-lr / (1 - beta1**t) for t in steps])


class Adam(_AdamStep, torch.optim.Adam):
    """Steps divided by the root of a running mean of g², for the gradient g = dL/dw + λ·w.

        m ← β₁·m + (1 − β₁)·g           m̂ = m / (1 − β₁ᵗ)
        v ← β₂·v + (1 − β₂)·g²          v̂ = v / (1 − β₂ᵗ)
        w ← w − η·m̂ / (√v̂ + ε)

    m̂ and v̂ undo the pull of both means towards the zeros that they start from.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the learning rate η, a number or a tensor of one element.
        betas, eps, weight_decay: (β₁, β₂), ε and λ.
        amsgrad: divide by the largest v so far.
        decoupled_weight_decay: shrink w by η·λ·w instead of adding λ·w to the gradient, as AdamW does; where
            torch.optim.Adam takes it, which it does not before torch 2.7.
        maximize: climb instead, along −dL/dw.
        capturable: keep the step count on the device, for CUDA graphs.
        differentiable: let autograd see the update.

    Raises ValueError for a negative rate, ε or decay and for β outside [0, 1), RuntimeError for sparse
    gradients.

    Source: D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015; S. Reddi et al., "On
    the Convergence of Adam and Beyond", 2018, for `amsgrad`.
    """


# torch's AdamW is an Adam, as are its groups; before torch 2.7 it is none, and decouples without a word in its groups
_AdamWBase: Any = Adam if issubclass(torch.optim.AdamW, torch.optim.Adam) else _AdamStep


class AdamW(_AdamWBase, torch.optim.AdamW):
    """Adam with the weight decay taken out of the gradient: w ← w − η·λ·w, then Adam's step with λ = 0.

    Arguments and errors are Adam's; weight_decay is 0.01 unless given.

    Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2019.
    """


def _are_updated_together(parameters: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> bool:
    """Whether `foreach` says so or, as torch decides, nobody says anything of parameters on a GPU.

    Not where the update is recorded, for autograd or in a CUDA graph, nor of sparse gradients, nor with rates that are
    tensors, which may lie on the GPU and would be waited for.
    """
    foreach = group.get("foreach")
    if foreach is None:
        foreach = not group.get("fused") and all(
            [parameter.device.type in ("cuda", "meta") for parameter in parameters]
        )
    recorded = group["differentiable"] or group.get("capturable", False)
    numbers = [group["lr"], *group.get("betas", ())]
    plain = not any([isinstance(number, Tensor) for number in numbers])
    return bool(foreach) and not recorded and plain and not any([grad.is_sparse for grad in grads])


def _with_decay(grad: Tensor, parameter: Tensor, weight_decay: Any) -> Tensor:
    """g + λ·w."""
    if isinstance(weight_decay, Tensor) and weight_decay.requires_grad:
        return grad.addcmul(parameter.clone(), weight_decay)
    return grad if weight_decay == 0 else grad.add(parameter, alpha=weight_decay)


def _zero_moments(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    on_device = group["capturable"] or group["fused"]
    double = torch.get_default_dtype() == torch.float64 and not group["fused"]
    state = {
        "step": torch.zeros(
            (),
            dtype=torch.float64 if double else torch.float32,
            device=parameter.device if on_device else "cpu",
        )
    }
    for name in ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"]):
        state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state


def _scalar(number: Any) -> Any:
    """A tensor of one element without its dimensions; a number as it is."""
    return number.reshape(()) if isinstance(number, Tensor) else number


def _real(tensor: Tensor) -> Tensor:
    """A complex tensor as pairs of reals: Adam takes the two parts for two parameters."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
