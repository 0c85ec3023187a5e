"""Check a backward pass of your own: which numbers are wrong, and which mistake gives such numbers."""

from torchfromscratch.check.checking import check
from torchfromscratch.check.layers import CannotCheckError
from torchfromscratch.check.report import Finding, Report

__all__ = ["CannotCheckError", "Finding", "Report", "check"]
