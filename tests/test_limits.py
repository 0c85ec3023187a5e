"""What docs/limits.md says is left out, is: each with the error that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from torchfromscratch import convert, from_scratch, nn
from torchfromscratch import functional as F

HALF = torch.ones(2, 3, dtype=torch.complex32)
PICTURE = torch.ones(1, 1, 4, 4)

LEFT_OUT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "complex32 linear": (lambda: F.linear(HALF, HALF), NotImplementedError, "not implemented for 'ComplexHalf'"),
    "complex32 convolution": (
        lambda: F.conv1d(HALF.unsqueeze(0), HALF.unsqueeze(2)[:, :2]),
        NotImplementedError,
        "not implemented for 'ComplexHalf'",
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


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_attention_of_nested_tensors_inside_from_scratch() -> None:
    attention = torch.nn.MultiheadAttention(4, 2, batch_first=True).eval()
    nested = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)])
    with torch.no_grad():
        attention(nested, nested, nested, need_weights=False)
        with from_scratch(), pytest.raises(AssertionError, match="has_torch_function"):
            attention(nested, nested, nested, need_weights=False)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_in_an_encoder_inside_from_scratch() -> None:
    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1).eval()
    x, padding = torch.ones(2, 3, 4), torch.tensor([[False] * 3, [False, True, True]])
    with torch.no_grad():
        assert not model(x, src_key_padding_mask=padding)[1, 1:].any()
        with from_scratch():
            assert model(x, src_key_padding_mask=padding)[1, 1:].any()
        assert not convert(model)(x, src_key_padding_mask=padding)[1, 1:].any()
