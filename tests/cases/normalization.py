"""Normalisation: each kind of statistics, with and without parameters, in training and in evaluation."""

import torch

from tests.cases import Case, ModuleCase


def _running(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Running statistics for the channels of x, the same at every call."""
    steps = torch.arange(1.0, 1 + x.shape[1], dtype=x.dtype, device=x.device)
    return steps / 4, steps


CASES = [
    Case(
        "batch_norm",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        ((4, 3, 2, 3), (3,), (3,)),
    ),
    Case("batch_norm rows", lambda F, x, w: F.batch_norm(x, None, None, w, training=True, eps=0.1), ((5, 3), (3,))),
    Case("batch_norm plain", lambda F, x: F.batch_norm(x, None, None, training=True), ((3, 2, 2, 2, 2),)),
    Case("batch_norm evaluation", lambda F, x, w, b: F.batch_norm(x, *_running(x), w, b), ((2, 3, 4), (3,), (3,))),
    Case("batch_norm evaluation plain", lambda F, x: F.batch_norm(x, *_running(x)), ((2, 3, 2, 2),)),
    Case(
        "instance_norm",
        lambda F, x, w, b: F.instance_norm(x, weight=w, bias=b),
        ((2, 3, 2, 3), (3,), (3,)),
    ),
    Case("instance_norm plain", lambda F, x: F.instance_norm(x), ((2, 3, 5),)),
    Case(
        "instance_norm running",
        lambda F, x, w, b: F.instance_norm(x, *_running(x), w, b, use_input_stats=False),
        ((2, 3, 4), (3,), (3,)),
    ),
    Case("layer_norm", lambda F, x, w, b: F.layer_norm(x, (5,), w, b), ((3, 2, 5), (5,), (5,))),
    Case(
        "layer_norm of two dimensions",
        lambda F, x, w, b: F.layer_norm(x, (3, 2), w, b, eps=0.1),
        ((2, 3, 2), (3, 2), (3, 2)),
    ),
    Case("layer_norm plain", lambda F, x: F.layer_norm(x, (4,)), ((3, 4),)),
    Case("rms_norm", lambda F, x, w: F.rms_norm(x, (5,), w), ((3, 2, 5), (5,))),
    Case("rms_norm plain", lambda F, x: F.rms_norm(x, (2, 3), eps=0.1), ((2, 2, 3),)),
    Case("group_norm", lambda F, x, w, b: F.group_norm(x, 2, w, b), ((2, 4, 3, 2), (4,), (4,))),
    Case("group_norm plain", lambda F, x: F.group_norm(x, 3, eps=0.1), ((2, 6, 3),)),
    Case("local_response_norm", lambda F, x: F.local_response_norm(x, 3, alpha=0.7, k=0.5), ((2, 5, 3, 2),)),
    Case("local_response_norm even", lambda F, x: F.local_response_norm(x, 4, 2.0, 0.5, 2.0), ((2, 3, 4),)),
]

MODULE_CASES = [
    ModuleCase("BatchNorm1d", lambda nn: nn.BatchNorm1d(4), ((5, 4),)),
    ModuleCase(
        "BatchNorm1d average",
        lambda nn: nn.BatchNorm1d(4, momentum=None),
        ((3, 4, 5),),
        leave_out={"meta": "torch.nn's own reads the count of batches, which has no value there"},
    ),
    ModuleCase("BatchNorm2d", lambda nn: nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), ((3, 4, 5, 6),)),
    ModuleCase("BatchNorm2d evaluation", lambda nn: nn.BatchNorm2d(4).eval(), ((3, 4, 5, 6),)),
    ModuleCase(
        "BatchNorm2d without running statistics",
        lambda nn: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        ((3, 4, 5, 6),),
    ),
    ModuleCase("BatchNorm3d", lambda nn: nn.BatchNorm3d(4), ((3, 4, 2, 3, 2),)),
    ModuleCase("InstanceNorm1d", lambda nn: nn.InstanceNorm1d(4), ((3, 4, 5),)),
    ModuleCase("InstanceNorm1d unbatched", lambda nn: nn.InstanceNorm1d(4, affine=True), ((4, 5),)),
    ModuleCase(
        "InstanceNorm2d", lambda nn: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), ((3, 4, 5, 6),)
    ),
    ModuleCase(
        "InstanceNorm2d evaluation",
        lambda nn: nn.InstanceNorm2d(4, affine=True, track_running_stats=True).eval(),
        ((3, 4, 5, 6),),
    ),
    ModuleCase("InstanceNorm3d", lambda nn: nn.InstanceNorm3d(4), ((3, 4, 2, 3, 2),)),
    ModuleCase("LayerNorm", lambda nn: nn.LayerNorm((5, 6)), ((3, 4, 5, 6),)),
    ModuleCase("LayerNorm without bias", lambda nn: nn.LayerNorm(6, bias=False), ((3, 4, 6),)),
    ModuleCase("GroupNorm", lambda nn: nn.GroupNorm(2, 4), ((3, 4, 5, 6),)),
    ModuleCase("RMSNorm", lambda nn: nn.RMSNorm(6), ((3, 4, 6),)),
    ModuleCase("LocalResponseNorm", lambda nn: nn.LocalResponseNorm(2, alpha=0.5), ((2, 4, 3, 2),)),
    ModuleCase(
        "CrossMapLRN2d",
        lambda nn: nn.CrossMapLRN2d(3, alpha=0.5),
        ((2, 1, 3, 2),),  # of more channels than one torch's are wrong: docs/torch.md
        leave_out={"meta": "torch's takes no such tensors"},
    ),
    ModuleCase("SyncBatchNorm", lambda nn: nn.SyncBatchNorm(3), ((2, 3, 4, 2),)),
]
