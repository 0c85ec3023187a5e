"""Padding modules."""

from __future__ import annotations

from typing import Any

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


def _with_constant(self: Any, input: Tensor) -> Tensor:
    return F.pad(input, self.padding, "constant", self.value)


def _by_reflection(self: Any, input: Tensor) -> Tensor:
    return F.pad(input, self.padding, "reflect")


def _by_replication(self: Any, input: Tensor) -> Tensor:
    return F.pad(input, self.padding, "replicate")


def _circularly(self: Any, input: Tensor) -> Tensor:
    self._check_input_dim(input)
    return F.pad(input, self.padding, "circular")


class ConstantPad1d(torch.nn.ConstantPad1d):
    """The last dimension framed with a constant: torch.nn.ConstantPad1d by hand."""

    forward = _with_constant


class ConstantPad2d(torch.nn.ConstantPad2d):
    """The last two dimensions framed with a constant: torch.nn.ConstantPad2d by hand."""

    forward = _with_constant


class ConstantPad3d(torch.nn.ConstantPad3d):
    """The last three dimensions framed with a constant: torch.nn.ConstantPad3d by hand."""

    forward = _with_constant


class ZeroPad1d(ConstantPad1d, torch.nn.ZeroPad1d):
    """The last dimension framed with zeros: torch.nn.ZeroPad1d by hand."""


class ZeroPad2d(ConstantPad2d, torch.nn.ZeroPad2d):
    """The last two dimensions framed with zeros: torch.nn.ZeroPad2d by hand."""


class ZeroPad3d(ConstantPad3d, torch.nn.ZeroPad3d):
    """The last three dimensions framed with zeros: torch.nn.ZeroPad3d by hand."""


class ReflectionPad1d(torch.nn.ReflectionPad1d):
    """The last dimension framed with its mirror image: torch.nn.ReflectionPad1d by hand."""

    forward = _by_reflection


class ReflectionPad2d(torch.nn.ReflectionPad2d):
    """The last two dimensions framed with its mirror image: torch.nn.ReflectionPad2d by hand."""

    forward = _by_reflection


class ReflectionPad3d(torch.nn.ReflectionPad3d):
    """The last three dimensions framed with its mirror image: torch.nn.ReflectionPad3d by hand."""

    forward = _by_reflection


class ReplicationPad1d(torch.nn.ReplicationPad1d):
    """The last dimension framed with its outermost elements: torch.nn.ReplicationPad1d by hand."""

    forward = _by_replication


class ReplicationPad2d(torch.nn.ReplicationPad2d):
    """The last two dimensions framed with its outermost elements: torch.nn.ReplicationPad2d by hand."""

    forward = _by_replication


class ReplicationPad3d(torch.nn.ReplicationPad3d):
    """The last three dimensions framed with its outermost elements: torch.nn.ReplicationPad3d by hand."""

    forward = _by_replication


class CircularPad1d(torch.nn.CircularPad1d):
    """The last dimension framed with its opposite edge: torch.nn.CircularPad1d by hand."""

    forward = _circularly


class CircularPad2d(torch.nn.CircularPad2d):
    """The last two dimensions framed with its opposite edge: torch.nn.CircularPad2d by hand."""

    forward = _circularly


class CircularPad3d(torch.nn.CircularPad3d):
    """The last three dimensions framed with its opposite edge: torch.nn.CircularPad3d by hand."""

    forward = _circularly
