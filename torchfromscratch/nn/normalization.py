"""Normalisation modules."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
import torch.nn
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch import functional as F
from torchfromscratch.functional.normalization import local_response
from torchfromscratch.functional.synchronized import sync_batch_norm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CrossMapLRN2d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LocalResponseNorm",
    "RMSNorm",
    "SyncBatchNorm",
]


class _BatchNorm(private.BatchNorm):
    """Which statistics batch norm takes, and how fast the running ones follow."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the average over all batches so far
                momentum = 1 / self.num_batches_tracked.to(self.running_mean.dtype)  # type: ignore[union-attr]
        use_running = self.track_running_stats or not self.training
        return F.batch_norm(
            input,
            self.running_mean if use_running else None,
            self.running_var if use_running else None,
            self.weight,
            self.bias,
            training=self.training or (self.running_mean is None and self.running_var is None),
            momentum=momentum,
            eps=self.eps,
        )


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """Batch norm of (N, C) or (N, C, L): torch.nn.BatchNorm1d by hand."""


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    """Batch norm of (N, C, H, W): torch.nn.BatchNorm2d by hand."""


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """Batch norm of (N, C, D, H, W): torch.nn.BatchNorm3d by hand."""


class LazyBatchNorm1d(torch.nn.LazyBatchNorm1d, _BatchNorm):
    """A BatchNorm1d from its first call on, which finds num_features: torch.nn.LazyBatchNorm1d by hand."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(torch.nn.LazyBatchNorm2d, _BatchNorm):
    """A BatchNorm2d from its first call on, which finds num_features: torch.nn.LazyBatchNorm2d by hand."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(torch.nn.LazyBatchNorm3d, _BatchNorm):
    """A BatchNorm3d from its first call on, which finds num_features: torch.nn.LazyBatchNorm3d by hand."""

    cls_to_become = BatchNorm3d


class _InstanceNorm(private.InstanceNorm):
    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        return F.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_input_stats=self.training or not self.track_running_stats,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
        )


class InstanceNorm1d(_InstanceNorm, torch.nn.InstanceNorm1d):
    """Instance norm of (N, C, L) or (C, L): torch.nn.InstanceNorm1d by hand."""


class InstanceNorm2d(_InstanceNorm, torch.nn.InstanceNorm2d):
    """Instance norm of (N, C, H, W) or (C, H, W): torch.nn.InstanceNorm2d by hand."""


class InstanceNorm3d(_InstanceNorm, torch.nn.InstanceNorm3d):
    """Instance norm of (N, C, D, H, W) or (C, D, H, W): torch.nn.InstanceNorm3d by hand."""


class LazyInstanceNorm1d(torch.nn.LazyInstanceNorm1d, _InstanceNorm):
    """An InstanceNorm1d from its first call on, which finds num_features: torch.nn.LazyInstanceNorm1d by hand."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(torch.nn.LazyInstanceNorm2d, _InstanceNorm):
    """An InstanceNorm2d from its first call on, which finds num_features: torch.nn.LazyInstanceNorm2d by hand."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(torch.nn.LazyInstanceNorm3d, _InstanceNorm):
    """An InstanceNorm3d from its first call on, which finds num_features: torch.nn.LazyInstanceNorm3d by hand."""

    cls_to_become = InstanceNorm3d


class LayerNorm(torch.nn.LayerNorm):
    """Standardised over the last dimensions: torch.nn.LayerNorm by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class GroupNorm(torch.nn.GroupNorm):
    """Standardised over groups of channels: torch.nn.GroupNorm by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    """Divided by the root mean square over the last dimensions: torch.nn.RMSNorm by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class LocalResponseNorm(torch.nn.LocalResponseNorm):
    """A channel divided by its neighbours' size: torch.nn.LocalResponseNorm by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class CrossMapLRN2d(torch.nn.CrossMapLRN2d):
    """`LocalResponseNorm` of images, whose window reaches as far before a channel as behind: by hand.

    torch.nn.CrossMapLRN2d never takes the first channel out of its sums, and shifts those of its gradient by one.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4:
            raise ValueError(f"CrossMapLRN2d: Expected input to be 4D, got {input.dim()}D instead.")
        reach = (self.size - 1) // 2
        return local_response(input, self.size, reach, reach, self.alpha, self.beta, self.k)


class SyncBatchNorm(_BatchNorm, torch.nn.SyncBatchNorm):
    """Batch norm over the batches of all processes: torch.nn.SyncBatchNorm by hand, on a CPU too."""

    def forward(self, input: Tensor) -> Tensor:
        group = self._group()
        if not self.training or group is None:
            return super().forward(input)
        self._check_input_dim(input)
        if input.shape[1] == 0:
            raise ValueError("SyncBatchNorm number of input channels should be non-zero")
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        tracks = self.track_running_stats
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the average over all batches so far
                momentum = 1 / self.num_batches_tracked.item()
        running = (self.running_mean, self.running_var) if tracks else (None, None)
        return sync_batch_norm(input, *running, self.weight, self.bias, momentum, self.eps, group)

    def _group(self) -> Any:
        """The processes to compute with, None if there is none but this."""
        if not (dist.is_available() and dist.is_initialized()):
            return None
        group = self.process_group or dist.group.WORLD
        return group if dist.get_world_size(group) > 1 else None

    @classmethod
    def convert_sync_batchnorm(cls, module: torch.nn.Module, process_group: Any = None) -> torch.nn.Module:
        """`module` with a SyncBatchNorm in the place of each batch norm, which shares its parameters and buffers."""
        converted = super().convert_sync_batchnorm(module, process_group)
        for part in converted.modules():
            if type(part) is torch.nn.SyncBatchNorm:
                part.__class__ = cls
        return converted
