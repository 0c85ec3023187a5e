"""Check a backward pass of your own: which numbers are wrong, and which mistake gives such numbers."""

from torchfromscratch.checking.checks import check
from torchfromscratch.checking.layers import CannotCheckError
from torchfromscratch.checking.report import Finding, Report

__all__ = ["CannotCheckError", "Finding", "Report", "check"]
