"""`torchfromscratch.check`: what it finds, names and lets pass."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchfromscratch
from tests.checking import functions
from torchfromscratch.checking import CannotCheckError
from torchfromscratch.checking.layers import LAYERS


def check(function: Any, like: Any = None, **options: Any) -> Any:
    return torchfromscratch.check(function, like, **{"cases": 40, **options})


def test_a_kernel_that_is_not_rotated_is_named_in_the_smallest_case() -> None:
    report = check(functions.KernelNotRotated.apply, "conv2d")
    assert [finding.what for finding in report.findings] == ["input.grad"]
    finding = report.findings[0]
    assert finding.mistake == "The kernel is not rotated."
    assert finding.right.numel() <= 4
    assert not torch.equal(finding.yours, finding.right)
    assert "dL/d weight       right" in str(report)
    assert finding.mistake in report._repr_html_()
    assert json.loads(json.dumps(report.as_dict()))["findings"][0]["right"] == finding.right.tolist()
    with pytest.raises(AssertionError, match="not rotated"):
        report.raise_if_wrong()


def test_the_program_of_a_finding_shows_it() -> None:
    finding = check(functions.KernelNotRotated.apply, "conv2d").findings[0]
    place: dict[str, Any] = {"KernelNotRotated": functions.KernelNotRotated, "print": lambda *_, **__: None}
    exec(finding.program, place)
    assert torch.equal(place["gradients"][0], finding.yours)


def test_two_mistakes_are_both_named() -> None:
    found = {finding.what: finding.mistake for finding in check(functions.TwoMistakes.apply, "conv2d").findings}
    assert found == {
        "weight.grad": "The weight's gradient is rotated.",
        "bias.grad": "The mean over batch and positions in place of the sum.",
    }


@pytest.mark.parametrize("dim", [1, -2])
def test_a_module_that_works_along_a_dimension_is_given_inputs_that_have_it(dim: int) -> None:
    assert check(nn.Softmax(dim), "softmax").right


FAULTS = {
    "WritesIntoGradOutput": ("relu", "memory", "writes into dL/dy"),
    "WritesIntoInput": ("relu", "memory", "writes into input"),
    "ReturnsItsInput": ("relu", "memory", "lies in the memory of input"),
    "KeepsInputOnCtx": ("relu", "save_for_backward", "kept as ctx.input"),
    "NoGradient": ("relu", "input.grad", "no gradient: None"),
    "NarrowGradient": ("relu", "input.grad", "float32"),
    "NeedsContiguous": ("relu", "error", "does not lie contiguously"),
    "Counts": ("relu", "repeatability", "Called twice"),
    "DetachedSigmoid": ("sigmoid", "second derivative", "silently zero"),
    "WrongTangent": ("tanh", "forward mode", "tangents"),
    "WrongVmap": ("tanh", "vmap", "numbers are wrong"),
    "WrongShape": ("linear", "weight.grad", "wrong shape"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_any_function_is_told(name: str) -> None:
    like, what, words = FAULTS[name]
    report = check(getattr(functions, name).apply, like)
    assert any(finding.what == what and words in (finding.mistake or "") for finding in report.findings), str(report)


@pytest.mark.parametrize(
    ("name", "like"),
    [("Conv2d", "conv2d"), ("ReLU", "relu"), ("OnceSigmoid", "sigmoid"), ("Tanh", "tanh"), ("Linear", "linear")],
)
def test_functions_that_are_right_pass(name: str, like: str) -> None:
    check(getattr(functions, name), like).raise_if_wrong()


def test_gradients_that_nobody_asked_for_are_advice() -> None:
    report = check(functions.Linear.apply, "linear")
    assert report.ok
    assert "needs_input_grad" in str(report.advice)
    assert "a batch of rows and a bias" in str(report.notes)


def in_float32(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(input.float(), weight.float(), None if bias is None else bias.float()).to(input.dtype)


def only_float32(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if input.dtype != torch.float32:
        raise TypeError("float32 only")
    return F.linear(input, weight, bias)


@pytest.mark.parametrize("function", [in_float32, only_float32])
def test_float32_is_no_mistake(function: Any) -> None:
    report = check(function, "linear")
    report.raise_if_wrong()
    assert "float32" in str(report.notes)


def mean_in_float32(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return 2 * in_float32(input, weight, bias)


def test_a_mistake_in_float32_is_one() -> None:
    assert check(mean_in_float32, "linear").findings[0].mistake == "It is twice what is right."


def refuses(input: Tensor) -> Tensor:
    raise NotImplementedError("not yet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((refuses, "relu"), "refuses every case of relu: NotImplementedError: not yet"),
        ((F.relu, "conv9d"), "did you mean conv"),
        ((3, "relu"), "cannot be called"),
        ((lambda a, b, c, d, e, f, g, h: a, "relu"), "relu is called as"),
        ((F.relu,), "say what it should be"),
        ((lambda x: (x.relu(), x > 0), "relu"), "returns 2 outputs, and relu has 1"),
    ],
    ids=["refused", "no such layer", "no function", "other arguments", "no like", "more outputs"],
)
def test_what_cannot_be_checked_is_said(arguments: tuple, message: str) -> None:
    with pytest.raises(CannotCheckError, match=message):
        check(*arguments)


# torch's own functions: right, but for an arrangement in memory for which its batch norm is wrong
TORCH = [name for name in LAYERS if name not in ("dropout", "batch_norm", "instance_norm", "lstm_cell")]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name[-2:] in ("1d", "3d"))) for name in TORCH]
)
def test_torchs_layers_are_right(name: str) -> None:
    check(getattr(F, name, None) or getattr(torch, name), name, cases=15, double=False).raise_if_wrong()


@pytest.mark.parametrize("module", [nn.Conv2d(3, 4, 3, stride=2), nn.Linear, nn.GRUCell, nn.MaxPool2d], ids=str)
def test_modules_and_their_classes_are_checked(module: Any) -> None:
    check(module, module, cases=15).raise_if_wrong()


def test_options_fix_what_a_function_does_not_take() -> None:
    def strided(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(input, weight, bias, 2)

    assert check(strided, "conv2d", options={"stride": 2}, cases=15).ok
    assert not check(strided, "conv2d", cases=15).ok


class Unknown(torch.autograd.Function):
    """y = |x|³ w, with half of dL/dx and the mean for the sum in dL/dw."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x.abs() ** 3 @ w

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return 1.5 * x * x.abs() * (grad_output @ w.T), (x.abs() ** 3).T @ grad_output / len(x)


def test_of_an_unknown_function_the_numbers_tell() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.randn(3, 2, generator=generator), torch.randn(2, 4, generator=generator))
    found = {finding.what: finding.mistake for finding in check(Unknown.apply, inputs=inputs).findings}
    assert found["x.grad"].startswith("It is half of what is right.")
    assert found["w.grad"].startswith("It is 0.333333 times what is right. Perhaps: The mean over the batch")


KINKED = {
    "relu": F.relu,
    "abs": torch.abs,
    "tanh": torch.tanh,
    "float32": lambda x: x.float().exp(),
    "sign": torch.sign,
    "a jump without a gradient": lambda x: (x > 0).double(),
    "median": lambda x: x.median(-1).values,
    "the second of three": lambda x: x.kthvalue(2, -1).values,
    "huber": lambda x: F.huber_loss(x, x.roll(1, 0)),
    "elu": F.elu,
    "max_pool1d": lambda x: F.max_pool1d(x, 2, 1),
    "cummax": lambda x: x.cummax(-1).values,
}


@pytest.mark.parametrize("function", KINKED.values(), ids=KINKED)
def test_unknown_functions_that_are_right_pass_at_their_kinks_too(function: Any) -> None:
    ties = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, -1.0], [0.0, -1.0, -1.0, 3.0]])
    for x in (ties, torch.arange(-3.0, 3.0).view(2, 3)):
        check(function, inputs=(x,)).raise_if_wrong()


def test_without_hypothesis_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "torchfromscratch.checking.cases", raising=False)
    with pytest.raises(CannotCheckError, match=r'pip install "torchfromscratch\[check\]"'):
        check(F.relu, "relu")


def test_import_leaves_hypothesis_alone() -> None:
    code = "import sys, torchfromscratch; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("function", "input", "said"),
    [
        (torch.square, torch.ones(2, dtype=torch.complex128), "and input_0 is torch.complex128"),
        (torch.view_as_complex, torch.ones(2, 2), "an output of the function is torch.complex128"),
        (lambda x: None, torch.ones(2), "an output of the function is NoneType"),
        (lambda x: {"y": x}, torch.ones(2), "an output of the function is dict"),
    ],
    ids=["complex input", "complex output", "nothing", "a dict"],
)
def test_what_is_no_real_tensor_cannot_be_checked(function: Any, input: Tensor, said: str) -> None:
    with pytest.raises(CannotCheckError, match=said):
        check(function, inputs=(input,))
