"""`torchfromscratch.check`: what it finds, names and lets pass."""

from __future__ import annotations

import subprocess
import sys

import torch
import torch.nn.functional as F

import torchfromscratch


class NotRotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, weight, bias, stride, padding):
        ctx.save_for_backward(input, weight)
        ctx.options = stride, padding
        return F.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, grad_output):
        input, weight = ctx.saved_tensors
        grad_input = torch.nn.grad.conv2d_input(input.shape, weight.flip(2, 3), grad_output, *ctx.options)
        grad_weight = torch.nn.grad.conv2d_weight(input, weight.shape, grad_output, *ctx.options)
        return grad_input, grad_weight, grad_output.sum((0, 2, 3)), None, None


def test_a_kernel_that_is_not_rotated_is_named_in_the_smallest_case():
    report = torchfromscratch.check(NotRotated.apply, "conv2d", cases=60)
    assert not report.ok
    assert [finding.what for finding in report.findings] == ["input.grad"]
    finding = report.findings[0]
    assert finding.mistake == "The kernel is not rotated."
    assert finding.right.numel() <= 4
    assert not torch.equal(finding.yours, finding.right)


def test_torch_import_leaves_hypothesis_alone():
    code = "import sys, torchfromscratch; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
