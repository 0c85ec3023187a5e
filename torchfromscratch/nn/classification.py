"""Losses that hold a layer of their own: of classes in clusters, and of a fully connected layer's logits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch import functional as F
from torchfromscratch.kernels.execution import has_concrete_values
from torchfromscratch.nn.linear import Linear
from torchfromscratch.nn.parts import make_by_hand, with_torchs_signature

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


@with_torchs_signature
class AdaptiveLogSoftmaxWithLoss(torch.nn.AdaptiveLogSoftmaxWithLoss):
    """log softmax over frequent classes and clusters of rare ones: torch.nn.AdaptiveLogSoftmaxWithLoss by hand.

    log y_c is log softmax(head)_c of a frequent class, log softmax(head)_k + log softmax(tail_k)_c of one in cluster k.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        make_by_hand(self, {torch.nn.Linear: Linear})

    def forward(self, input_: Tensor, target_: Tensor) -> Any:
        batched = target_.dim() > 0
        if target_.dim() > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if input_.dim() != target_.dim() + 1:
            raise RuntimeError(
                f"{target_.dim()}D target tensor expects {target_.dim() + 1}D input tensors, "
                f"but found inputs with size {input_.size()}"
            )
        if batched and input_.size(0) != target_.size(0):
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        input, target = (input_, target_) if batched else (input_.unsqueeze(0), target_.unsqueeze(0))
        if target.numel() and has_concrete_values(target) and (target.min() < 0 or target.max() >= self.n_classes):
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], "
                f"but values in range [{target.min().item()}, {target.max().item()}] were found. "
            )
        entry, within = target.clone(), input.new_zeros(target.shape)
        for cluster, (low, high) in enumerate(pairwise(self.cutoffs)):
            rows = ((target >= low) & (target < high)).nonzero().squeeze(1)
            if rows.numel() == 0:
                continue
            scores = F.log_softmax(self.tail[cluster](input.index_select(0, rows)), dim=1)
            of_class = scores.gather(1, (target.index_select(0, rows) - low).unsqueeze(1)).squeeze(1)
            within = within.index_add(0, rows, of_class.to(within.dtype))
            entry = entry.index_fill(0, rows, self.shortlist_size + cluster)
        head = F.log_softmax(self.head(input), dim=1)
        output = within + head.gather(1, entry.unsqueeze(1)).squeeze(1)
        loss = (-output).mean()
        return private.AdaptiveSoftmaxOutput(output if batched else output.squeeze(0), loss)

    def _get_full_log_prob(self, input: Tensor, head_output: Tensor) -> Tensor:
        head = F.log_softmax(head_output, dim=1)
        parts = [head[:, : self.shortlist_size]]
        for cluster, tail in enumerate(self.tail):
            entry = head.narrow(1, self.shortlist_size + cluster, 1)
            parts.append(F.log_softmax(tail(input), dim=1) + entry)
        return torch.cat(parts, 1)


if hasattr(torch.nn, "LinearCrossEntropyLoss"):

    @with_torchs_signature
    class LinearCrossEntropyLoss(torch.nn.LinearCrossEntropyLoss):
        """Cross-entropy of a fully connected layer's logits: torch.nn.LinearCrossEntropyLoss by hand."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            make_by_hand(self, {torch.nn.Linear: Linear})

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            shape, bias = (self.num_classes, *self.out_features), self.linear.bias
            return F.linear_cross_entropy(
                input,
                self.linear.weight.reshape(*shape, self.linear.in_features),
                target,
                linear_bias=None if bias is None else bias.reshape(shape),
                weight=self.weight,
                reduction=self.reduction,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                options=self.options,
            )

    __all__ += ["LinearCrossEntropyLoss"]
