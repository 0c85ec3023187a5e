"""What docs/limits.md says is left out, is: each with the error that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests import lacks
from torchfromscratch import functional as F
from torchfromscratch import nn

HALF = torch.ones(2, 3, dtype=torch.complex32)
PICTURE = torch.ones(1, 1, 4, 4)

LEFT_OUT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "complex32 linear": (lambda: F.linear(HALF, HALF), lacks.unimplemented(), "not implemented for 'ComplexHalf'"),
    "complex32 convolution": (
        lambda: F.conv1d(HALF.unsqueeze(0), HALF.unsqueeze(2)[:, :2]),
        lacks.unimplemented(),
        "not implemented for 'ComplexHalf'",
    ),
    "complex rms_norm": (lambda: F.rms_norm(HALF.to(torch.complex64), (3,)), NotImplementedError, "complex64"),
    "complex soft margin": (
        lambda: F.soft_margin_loss(HALF.to(torch.complex64), torch.ones(2, 3)),
        NotImplementedError,
        "complex64",
    ),
    "complex Poisson loss": (
        lambda: F.poisson_nll_loss(HALF.to(torch.complex64), torch.ones(2, 3)),
        NotImplementedError,
        "complex64",
    ),
    "sparse": (lambda: F.relu(torch.eye(3).to_sparse()), NotImplementedError, "SparseCPU"),
    "nested": (lambda: F.relu(torch.nested.nested_tensor([torch.ones(2)])), NotImplementedError, "NestedTensorCPU"),
    "oneDNN": (lambda: F.relu(PICTURE.to_mkldnn()), RuntimeError, "Mkldnn"),
    "TorchScript": (lambda: torch.jit.script(nn.Linear(2, 3)), Exception, "not supported"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("call", "error", "words"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_left_out(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
