"""Every linear Function has for its derivatives what linear algebra says of its matrix, and no class restates a row."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.subjects import random_tensors
from torchfromscratch import autograd
from torchfromscratch.autograd.linear_map import LINEAR
from torchfromscratch.kernels.spans import dividing_spans, sliding_spans
from torchfromscratch.kernels.windows import Windows

FILES = sorted(Path(next(iter(autograd.__path__))).glob("*.py"))
for file in FILES:
    importlib.import_module(f"torchfromscratch.autograd.{file.stem}")

WINDOWS = Windows(kernel_size=(2, 3), stride=(1, 2), padding=(1, 0), dilation=(1, 1))
IMAGES = (2, 3, 4, 5)

# name: the shape of x, and the constants
EXAMPLES: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "AffineGrid": ((2, 2, 3), ((3, 2), False)),
    "Average": (IMAGES, (sliding_spans(WINDOWS, (4, 5), False, None),)),
    "Average adaptive": (IMAGES, (dividing_spans((4, 5), (3, 2)),)),
    "ChannelShuffle": ((2, 6, 3), (2,)),
    "ChannelSums": ((2, 4, 3), (1, 2)),
    "Drop": ((2, 3), (torch.tensor([[True, False, True], [False, True, True]]), 0.5)),
    "Fetch": (IMAGES, (torch.tensor([3, 1, 0, 2, 2, 1]).view(2, 3, 1, 1), Windows((2, 2), (3, 4), (0, 0), (1, 1)))),
    "Flatten": ((2, 3, 4), (1, 2)),
    "Gate": ((5,), (torch.tensor([1.0, 0.0, -0.0, torch.nan, 2.0], dtype=torch.float64),)),
    "Gather": ((4, 3), (torch.tensor([[0, 2], [2, 3]]),)),
    "Keep": ((2, 3), (torch.tensor([[True, False, True], [False, True, True]]),)),
    "Margins": ((2, 4), (torch.tensor([[0, 3, 0], [1, 2, 3]]),)),
    "NegativeLogLikelihood": ((2, 3, 2), (torch.tensor([[[0, 2]], [[1, 9]]]), torch.tensor([0.5, 2.0, 3.0]), 1, 9)),
    "PadEdges reflect": (IMAGES, ([(1, 2), (0, 3)], "reflect")),
    "PadEdges replicate": (IMAGES, ([(1, 2), (0, 3)], "replicate")),
    "PadEdges circular": (IMAGES, ([(1, 2), (0, 3)], "circular")),
    "PixelShuffle": ((2, 8, 3, 2), (2,)),
    "Resample": (
        (2, 3, 4),
        (torch.tensor([[0, 1, 1], [1, 3, 2]]), torch.tensor([[0.2, 0.5, 1.0], [0.8, 0.5, 0.0]]), 2),
    ),
    "TakeRows": ((4, 3), (torch.tensor([[0, 2, -1], [3, 2, 0], [-1, 2, 3]]),)),
    "Unfold": (IMAGES, (WINDOWS,)),
    "Unpool": ((2, 1, 2, 2), (torch.tensor([[[[3, 1], [0, 7]]], [[[2, 5], [6, 4]]]]), (2, 4))),
}

# classes whose jvp applies the Function itself to the tangent, and why they are no rows
NO_ROWS = {
    "PadConstant": "affine: tangents and gradients are padded with 0 where x is padded with a value",
}


def test_every_row_has_an_example() -> None:
    assert {name.removesuffix("Transpose") for name in LINEAR} == {name.partition(" ")[0] for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_derivatives_are_the_matrix_and_its_transpose(name: str) -> None:
    size, constants = EXAMPLES[name]

    def apply(x: Tensor) -> Tensor:
        return LINEAR[name.partition(" ")[0]](x, *constants)

    def pull_back(g: Tensor) -> Tensor:
        return torch.func.vjp(apply, x)[1](g)[0]

    x, v = random_tensors(size, size)
    with torch.no_grad():
        matrix = torch.stack([apply(unit).flatten() for unit in torch.eye(x.numel()).double().view(-1, *size)], 1)
        y = apply(x)
    g, u = [-2 * random.detach() for random in random_tensors(y.shape, y.shape)]
    assert matrix.any()

    (grad_x,) = torch.autograd.grad(apply(x), x, g.requires_grad_(), create_graph=True)
    (grad_g,) = torch.autograd.grad(grad_x, g, v)
    x, v = x.detach(), v.detach()
    pairs = {
        "value": (y, matrix @ x.flatten()),
        "gradient": (grad_x, matrix.T @ g.flatten()),
        "gradient of the gradient": (grad_g, matrix @ v.flatten()),
        "tangent": (torch.func.jvp(apply, (x,), (v,))[1], matrix @ v.flatten()),
        "tangent of the gradient": (torch.func.jvp(pull_back, (g,), (u,))[1], matrix.T @ u.flatten()),
        "of many": (torch.func.vmap(apply, in_dims=1)(torch.stack([x, v], 1))[1], matrix @ v.flatten()),
        "gradient of many": (torch.func.vmap(pull_back)(torch.stack([g, u]))[1], matrix.T @ u.flatten()),
    }
    for what, (actual, expected) in pairs.items():
        torch.testing.assert_close(actual.flatten(), expected, msg=lambda text, what=what: f"{what}: {text}")


def test_no_class_restates_a_row() -> None:
    restating = {
        name for file in FILES for name in _applied_to_their_tangents(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert restating == set(NO_ROWS)


def _applied_to_their_tangents(tree: ast.Module) -> Iterator[str]:
    """The classes of a file with a jvp that returns `function(tangent, …)`, where function = differentiable(class)."""
    functions = {
        node.value.args[0].id: node.targets[0].id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _named(node.value) == "differentiable"
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in functions:
            jvp = [method for method in node.body if isinstance(method, ast.FunctionDef) and method.name == "jvp"]
            returned = [step.value for step in ast.walk(ast.Module(jvp, [])) if isinstance(step, ast.Return)]
            if any(isinstance(value, ast.Call) and _named(value) == functions[node.name] for value in returned):
                yield node.name


def _named(call: ast.Call) -> str | None:
    return call.func.id if isinstance(call.func, ast.Name) else None
