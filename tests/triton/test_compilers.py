"""What torch.compile gets for a GPU: some layers as operations, the others as plain arithmetic, which it fuses.

Traced on meta tensors, forward and backward, and recorded instead of compiled.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from torchfromscratch import functional as F
from torchfromscratch.kernels.triton import LEAST_VERSION

pytest.importorskip("triton", minversion=LEAST_VERSION, reason="without it, there are no operations for a GPU")


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", requires_grad=True)


def traced(function: Callable[..., Tensor], *args: Tensor, dynamic: bool = False) -> tuple[set[str], int]:
    """The operations of ours that the graphs call, and the elements of the largest tensor in them."""
    called: set[str] = set()
    sizes: list[int] = []

    def record(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        for node in graph.graph.nodes:
            name = str(node.target)
            if name.startswith("torchfromscratch."):
                called.add(name.removeprefix("torchfromscratch.triton_").removesuffix(".default"))
            if isinstance(node.meta.get("val"), Tensor):
                sizes.append(int(node.meta["val"].numel()))
        return graph.forward

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=record, bw_compiler=record)
    output = torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)(*args)
    output.sum().backward()
    return called, max(sizes)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_has_no_matrix_of_scores(is_causal: bool, dynamic: bool) -> None:
    q, k, v = meta(2, 4, 100, 8), meta(2, 4, 70, 8), meta(2, 4, 70, 8)
    attend = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)  # noqa: E731
    called, largest = traced(attend, q, k, v, dynamic=dynamic)
    assert called == {"attend", "attend_gradients"}
    assert largest == q.numel()


def test_convolution_has_no_matrix_of_windows() -> None:
    x, w = meta(2, 8, 10, 10), meta(8, 8, 3, 3)
    called, largest = traced(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    assert called == {"correlate", "full_convolution", "weight_gradient"}
    assert largest == x.numel()


@pytest.mark.parametrize("stride", [2, 3])
def test_max_pooling_is_read_once(stride: int) -> None:
    called, _ = traced(lambda x: F.max_pool2d(x, 3, stride), meta(2, 4, 9, 9))
    assert called == {"max_windows", "fetch_transpose"}


def test_under_a_transform_of_torch_func_nothing_is_an_operation_as_these_have_no_derivative() -> None:
    seen: list[str] = []

    def record(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        seen.extend([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    torch._dynamo.reset()
    w = torch.empty(4, 4, 3, 3, device="meta")
    gradient = torch.func.grad(lambda x: F.max_pool2d(F.conv2d(x, w), 2).sum())
    torch.compile(gradient, backend=aot_autograd(fw_compiler=record))(torch.empty(2, 4, 8, 8, device="meta"))
    assert seen
    assert not [name for name in seen if name.startswith("torchfromscratch.")]


ARITHMETIC: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "softmax": lambda x: F.softmax(x, 1),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_other_layers_are_arithmetic_that_is_fused(name: str) -> None:
    """None of it is larger than the input."""
    x = meta(8, 4, 6, 6)
    called, largest = traced(ARITHMETIC[name], x)
    assert called == set()
    assert largest <= x.numel()
