"""`torchfromscratch.explain`: a layer at inputs of one's own, and a function of one's own beside what is right."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch
from tests.checking import functions
from torchfromscratch import explain, functional, nn
from torchfromscratch.__main__ import main
from torchfromscratch.checking import CannotCheckError
from torchfromscratch.explaining import CannotExplainError, Explanation, comparison
from torchfromscratch.explaining.arguments import EXPLAINED
from torchfromscratch.explaining.page import as_page


def whole(*shape: int) -> Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(sum(shape))).float()


CALLS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "conv2d": ([whole(1, 2, 5, 4), whole(2, 2, 3, 2), whole(2)], {"stride": 2, "padding": (1, 0)}),
    "conv_transpose2d": ([whole(1, 2, 2, 2), whole(2, 1, 3, 3)], {"stride": 2, "output_padding": 1}),
    "max_pool2d": ([whole(1, 1, 5, 4), 2], {"stride": 1}),
    "avg_pool2d": ([whole(1, 1, 5, 4), (3, 2)], {"padding": 1, "count_include_pad": False}),
    "linear": ([whole(2, 3), whole(4, 3), whole(4)], {}),
    "relu": ([whole(2, 3)], {}),
    "softmax": ([whole(2, 3)], {"dim": 1}),
    "cross_entropy": ([whole(2, 3), torch.tensor([2, 0])], {}),
    "batch_norm": ([whole(4, 2), None, None, whole(2), whole(2)], {"training": True}),
    "layer_norm": ([whole(2, 4), (4,), whole(4), whole(4)], {}),
    "embedding": ([torch.tensor([2, 0, 2]), whole(4, 2)], {}),
    "scaled_dot_product_attention": ([whole(2, 3), whole(4, 3), whole(4, 2)], {}),
    "lstm_cell": ([whole(1, 2), whole(1, 3), whole(1, 3), whole(12, 2), whole(12, 3), whole(12), whole(12)], {}),
}
MODULES = {
    "Conv2d": ([3, 2, 3], (whole(1, 3, 4, 4),)),
    "MaxPool2d": ([2], (whole(1, 4, 4),)),
    "Linear": ([3, 2], (whole(2, 3),)),
    "Softmax": ([1], (whole(2, 3),)),
    "BatchNorm2d": ([2], (whole(2, 2, 2, 2),)),
    "LayerNorm": ([4], (whole(2, 4),)),
    "CrossEntropyLoss": ([], (whole(2, 3), torch.tensor([2, 0]))),
    "Embedding": ([4, 2], (torch.tensor([1, 1]),)),
}
explained = pytest.mark.parametrize("name", EXPLAINED)


@pytest.fixture(autouse=True)
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "CASES", 8)


@pytest.fixture(scope="module")
def not_rotated() -> Explanation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "CASES", 8)
        return explain(functions.KernelNotRotated.apply, like="conv2d")


def data_of(page: str) -> Any:
    return json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]


@explained
def test_a_layer_is_explained_at_inputs_of_ones_own(name: str) -> None:
    """By its name, and by a function of this package, or of torch where there is one."""
    inputs, options = CALLS[name]
    explanation = explain(name, inputs, options=options)
    assert explanation.largest_difference < 1e-13
    assert not explanation.verdict
    for home in (functional, torch.nn.functional):
        if hasattr(home, name):
            assert str(explain(getattr(home, name), inputs, options=options)) == str(explanation)


@explained
def test_a_name_alone_shows_what_the_command_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = {"scaled_dot_product_attention": "attention", "lstm_cell": "lstm"}.get(name, name)
    assert main(["explain", command]) == 0
    assert capsys.readouterr().out == f"{explain(name)}\n"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("library", [torch.nn, nn], ids=["torch", "ours"])
def test_a_module_is_explained_with_the_parameters_that_it_holds(name: str, library: Any) -> None:
    made_with, inputs = MODULES[name]
    module = getattr(library, name)(*made_with).double()
    inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    y = explain(module, inputs).grids["L" if name == "CrossEntropyLoss" else "y"].values
    torch.testing.assert_close(y, module(*inputs).view(y.shape))


def test_grad_output_is_ones_own() -> None:
    grad = torch.tensor([[1.0, -2.0, 7.0]])
    assert torch.equal(explain("relu", (whole(1, 3),), grad_output=grad).grids["dL/dy"].values, grad.double())
    with pytest.raises(CannotExplainError, match="grad_output is 1×3, and the output is 3×1"):
        explain("relu", (whole(3, 1),), grad_output=grad)


def test_a_notebook_shows_the_page_in_a_frame() -> None:
    explanation = explain("relu")
    frame = explanation._repr_html_()
    page = html.unescape(re.fullmatch(r'<iframe srcdoc="([^"]*)"[^<>]*></iframe>', frame)[1])  # type: ignore[index]
    assert page == as_page(explanation)
    assert repr(explanation) == str(explanation)


def test_its_figure_is_matplotlibs(not_rotated: Explanation) -> None:
    from matplotlib.figure import Figure

    figures = [explain("relu").figure(), not_rotated.figure()]
    assert all(isinstance(figure, Figure) for figure in figures)
    shown = [{text.get_text() for text in figure.axes[0].texts} for figure in figures]
    assert "given" not in shown[0]
    assert {"given", "=", "≠"} <= shown[1]


def test_it_is_imported_when_it_is_asked_for() -> None:
    program = "import sys, torchfromscratch as t; 'explain' in dir(t) or exit(1); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "torchfromscratch.checking.checks" in modules.split()
    assert "torchfromscratch.explaining" not in modules.split()
    with pytest.raises(AttributeError, match="has no attribute 'explains'"):
        _ = torchfromscratch.explains


def test_a_function_of_ones_own_stands_beside_what_is_right_and_why() -> None:
    x, w = whole(1, 1, 4, 4), whole(1, 1, 3, 3)
    explanation = explain(functions.KernelNotRotated.apply, (x, w), like="conv2d")
    right, given, wrong = (getattr(explanation.grids["dL/dx"], what) for what in ("values", "given", "wrong"))
    assert wrong.any()
    assert torch.equal(wrong, right != given)
    assert not any(explanation.grids[name].wrong.any() for name in ("y", "dL/dw"))
    assert "The kernel is not rotated." in explanation.verdict
    assert explanation.verdict in str(explanation)
    assert re.search(r"given dL/dx\[0,0\]\n.*\[", str(explanation))
    data = data_of(as_page(explanation))
    assert "The kernel is not rotated." in data["verdict"]
    assert data["grids"]["dL/dx"]["wrong"] == wrong.flatten().int().tolist()
    assert data["grids"]["dL/dx"]["beside"]["label"] == "given"


def test_without_inputs_the_smallest_case_that_shows_the_mistake_is_shown(not_rotated: Explanation) -> None:
    assert not_rotated.grids["dL/dx"].values.numel() <= 4
    assert not_rotated.grids["dL/dx"].wrong.any()  # type: ignore[union-attr]


class OnesOwnLinear(torch.nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return input.mm(self.weight.mT) + self.bias


def test_a_module_of_ones_own_is_explained_with_the_parameters_that_it_holds() -> None:
    module, x = OnesOwnLinear(3, 2), whole(4, 3)
    for explanation in (explain(module, (x,), like="linear"), explain(module, x)):
        assert not any(grid.wrong is not None and grid.wrong.any() for grid in explanation.grids.values())
    assert torch.equal(explain(module, x, like="linear").grids["w"].values, module.weight.detach().double())


def wrong_for_nothing(input: Tensor) -> Tensor:
    """ReLU, but for an empty input."""
    return functional.relu(input) if input.numel() else input.new_ones(3) * input.sum()


def test_a_case_without_numbers_is_not_shown() -> None:
    assert all(grid.values.numel() for grid in explain(wrong_for_nothing, like="relu").grids.values())


class FailsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        raise ValueError("no idea")


def test_where_a_function_fails_the_right_numbers_stand_alone_and_the_verdict_says_why() -> None:
    explanation = explain(FailsInBackward.apply, whole(2, 2), like="relu")
    assert explanation.verdict.startswith("FailsInBackward.apply fails here: ValueError: no idea\n")
    assert all(grid.beside is None for grid in explanation.grids.values())
    assert explanation.figure()


def conv2d_by_two(input: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(input, weight, stride=2)


def test_options_come_from_the_module_that_it_should_be_like() -> None:
    explanation = explain(conv2d_by_two, (whole(1, 1, 5, 5), whole(1, 1, 3, 3)), like=nn.Conv2d(1, 1, 3, 2))
    assert explanation.grids["y"].values.shape == (1, 1, 2, 2)


@pytest.mark.parametrize("name", [*EXPLAINED, "sigmoid", "group_norm"])
def test_what_is_right_is_called_right_beside_every_layer(name: str) -> None:
    function = torch.nn.LSTMCell if name == "lstm_cell" else getattr(functional, name)
    explanation = explain(function, like=name)
    given = {result for result, grid in explanation.grids.items() if grid.given is not None}
    assert len(given) >= 2
    assert all(part.result in given for part in explanation.passes if part.result in ("y", "L", "dL/dx", "output"))
    assert not any(explanation.grids[result].wrong.any() for result in given)  # type: ignore[union-attr]
    assert data_of(as_page(explanation))["grids"].keys() == explanation.grids.keys()


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_function_that_nobody_knows_stands_beside_finite_differences(is_wrong: bool) -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grad_output * (2 if is_wrong else 3) * x**2

    explanation = explain(Cube.apply, (torch.tensor([1.0, 0.0, -2.0]),), grad_output=torch.ones(3))
    grid = explanation.grids["dL/d x"]
    torch.testing.assert_close(grid.values, torch.tensor([3.0, 0.0, 12.0]).double(), rtol=1e-4, atol=1e-4)
    assert grid.wrong.tolist() == [is_wrong, False, is_wrong]  # type: ignore[union-attr]
    assert ("wrong" in explanation.verdict) == is_wrong
    assert not data_of(as_page(explanation))["code"]


@pytest.mark.parametrize(
    ("layer", "inputs", "options"),
    [
        ("sigmoid", (whole(3),), {}),
        ("softmax", (whole(2, 3),), {"dim": 0}),
        ("cross_entropy", (whole(2, 3), torch.tensor([0, 1])), {"reduction": "sum"}),
        (nn.Tanh(), (whole(3),), {}),
        (nn.BatchNorm1d(2).eval(), (whole(3, 2),), {}),
    ],
)
def test_what_has_no_explanation_of_its_own_is_explained_by_finite_differences(
    layer: Any, inputs: tuple[Tensor, ...], options: dict[str, Any]
) -> None:
    explanation = explain(layer, inputs, options=options)
    assert "finite differences" in explanation.passes[0].title
    assert not any(grid.wrong is not None and grid.wrong.any() for grid in explanation.grids.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain("conv2d", (whole(1, 1, 2, 2), whole(1, 1, 3, 3))), "conv2d: .*Kernel size can't be greater"),
        (lambda: explain("conv2d", (whole(1, 1, 9, 9),)), "weight was not given"),
        (lambda: explain("relu", (whole(3), whole(3))), "relu takes input, and 2 inputs were given"),
        (lambda: explain("conv2d", (whole(1, 1, 90, 90), whole(1, 1, 3, 3))), "too many to read"),
        (lambda: explain(torch.relu, "relu"), "say like='relu'"),
        (lambda: explain("relu", (torch.ones(0, 2),)), "no numbers to show in an empty tensor"),
        (lambda: explain("sigmoid"), "no example: give inputs"),
        (lambda: explain(lambda x: x), "say what it is called with"),
        (lambda: explain(lambda x: x, (1, 2), like="relu"), "takes input, and 2 were given"),
        (lambda: explain(lambda x: torch.ones(5) @ x, (whole(3),)), "fails"),
    ],
)
def test_what_cannot_be_explained_says_why(call: Any, message: str) -> None:
    with pytest.raises((CannotExplainError, CannotCheckError), match=message):
        call()
    assert issubclass(CannotExplainError, torchfromscratch.errors.UserError)
