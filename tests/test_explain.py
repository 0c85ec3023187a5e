"""What `python -m torchfromscratch explain` shows is true, and a mistake of its user ends in one message."""

import json
import math
import re
from xml.etree import ElementTree

import pytest
import torch

from torchfromscratch.__main__ import main
from torchfromscratch.entry_point import run
from torchfromscratch.explaining import conv2d, sources
from torchfromscratch.explaining import layers as explained
from torchfromscratch.explaining.command import LAYERS
from torchfromscratch.explaining.mathml import mathml
from torchfromscratch.explaining.page import as_page
from torchfromscratch.explaining.text import as_text


def _whole(*shape):
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(sum(shape))).double()


WINDOWS = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}
EXPLANATIONS = {
    "conv2d": lambda: conv2d(_whole(1, 1, 4, 4), _whole(1, 1, 3, 3), grad_output=lambda s: _whole(*s)),
    "conv2d with everything": lambda: conv2d(
        _whole(2, 4, 6, 5),
        _whole(6, 2, 2, 3),
        _whole(6),
        stride=(2, 1),
        padding=(1, 2),
        dilation=(2, 1),
        groups=2,
        grad_output=lambda s: _whole(*s),
    ),
    "conv2d padded beyond its kernel": lambda: conv2d(
        _whole(1, 2, 2, 3), _whole(1, 2, 2, 2), padding=(3, 2), grad_output=lambda s: _whole(*s)
    ),
    "conv2d with a rest": lambda: conv2d(
        _whole(1, 1, 6, 5), _whole(1, 1, 3, 2), stride=(2, 3), grad_output=lambda s: _whole(*s)
    ),
    "conv_transpose2d": lambda: explained.conv_transpose2d(
        _whole(1, 1, 2, 2), _whole(1, 1, 3, 3), _whole(1), stride=(2, 2), grad_output=lambda s: _whole(*s)
    ),
    "conv_transpose2d with everything": lambda: explained.conv_transpose2d(
        _whole(2, 4, 3, 2),
        _whole(4, 3, 2, 3),
        _whole(6),
        stride=(2, 3),
        padding=(1, 2),
        output_padding=(1, 2),
        dilation=(2, 1),
        groups=2,
        grad_output=lambda s: _whole(*s),
    ),
    "softmax": lambda: explained.softmax(_whole(3, 4), grad_output=lambda s: _whole(*s)),
    "layer_norm": lambda: explained.layer_norm(_whole(3, 4), _whole(4), _whole(4), grad_output=lambda s: _whole(*s)),
    "embedding": lambda: explained.embedding(
        torch.tensor([3, 0, 3, 1]), _whole(5, 2), grad_output=lambda s: _whole(*s)
    ),
    "attention": lambda: explained.attention(
        _whole(2, 3), _whole(4, 3), _whole(4, 2), grad_output=lambda s: _whole(*s)
    ),
    "lstm": lambda: explained.lstm(
        _whole(2, 3), _whole(2, 2), _whole(2, 2), _whole(8, 5) / 4, _whole(8), grad_output=lambda s: _whole(*s)
    ),
    "max_pool2d": lambda: explained.max_pool2d(_whole(2, 2, 5, 4), **WINDOWS, grad_output=lambda s: _whole(*s)),
    "max_pool2d dilated, ceil_mode": lambda: explained.max_pool2d(
        _whole(1, 1, 6, 6),
        kernel_size=(2, 2),
        stride=(3, 2),
        dilation=(2, 1),
        ceil_mode=True,
        grad_output=lambda s: _whole(*s),
    ),
    "avg_pool2d": lambda: explained.avg_pool2d(_whole(2, 1, 5, 4), **WINDOWS, grad_output=lambda s: _whole(*s)),
    "avg_pool2d ceil_mode": lambda: explained.avg_pool2d(
        _whole(1, 1, 6, 6), **WINDOWS, ceil_mode=True, grad_output=lambda s: _whole(*s)
    ),
    "avg_pool2d of real cells": lambda: explained.avg_pool2d(
        _whole(1, 2, 5, 4), **WINDOWS, ceil_mode=True, count_include_pad=False, grad_output=lambda s: _whole(*s)
    ),
    "linear": lambda: explained.linear(_whole(3, 4), _whole(2, 4), _whole(2), grad_output=lambda s: _whole(*s)),
    "relu": lambda: explained.relu(_whole(2, 3, 2), grad_output=lambda s: _whole(*s)),
    "cross_entropy": lambda: explained.cross_entropy(_whole(3, 4), torch.tensor([2, 0, 3])),
    "batch_norm": lambda: explained.batch_norm(
        _whole(3, 2), _whole(2) + 5, _whole(2), grad_output=lambda s: _whole(*s)
    ),
    "batch_norm of pictures": lambda: explained.batch_norm(
        _whole(2, 2, 2, 3), _whole(2) + 5, _whole(2), grad_output=lambda s: _whole(*s)
    ),
}

explanations = pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in EXPLANATIONS.items()])


def worked_out(expression: str) -> float:
    """The value of a sum as it is printed."""
    python = re.sub(r"ln ([\d.e−]+)", r"log(\1)", expression)
    python = re.sub(r"√(\d+)", r"√(\1)", python)
    for printed, meant in {"·": "*", "−": "-", "√": "sqrt", "²": "**2", "e^": "E**", "∞": "inf"}.items():
        python = python.replace(printed, meant)
    names = {
        "log": math.log,
        "tanh": math.tanh,
        "sqrt": math.sqrt,
        "E": math.e,
        "inf": math.inf,
        "max": lambda *values: max(values),
    }
    return eval(python, {"__builtins__": {}}, names)


@explanations
def test_every_printed_sum_comes_to_the_cell_it_explains(build):
    explanation = build()
    for part in explanation.passes:
        values = explanation.grids[part.result].values.flatten().tolist()
        assert [step.cell for step in part.steps] == list(range(len(values)))
        for step, value in zip(part.steps, values, strict=True):
            assert worked_out(step.text) == pytest.approx(value, rel=2e-3, abs=5e-3), f"{part.result}: {step.text}"


@explanations
def test_the_cells_that_light_up_multiply_to_the_result(build):
    explanation = build()
    for part in explanation.passes:
        if len(part.paired) < 2:
            continue
        result = explanation.grids[part.result].values.flatten()
        for step in part.steps:
            columns = [explanation.grids[name].values.flatten()[step.used[name]] for name in part.paired]
            constant = explanation.grids["b"].values[step.used["b"]] if "b" in step.used else torch.zeros(1)
            torch.testing.assert_close((columns[0] * columns[1]).sum() + constant[0], result[step.cell])


@explanations
def test_results_are_those_of_torch(build):
    assert build().largest_difference < 1e-14


@explanations
def test_every_used_cell_is_shown_beside_its_result(build):
    for part in build().passes:
        for step in part.steps:
            assert set(step.used) <= set(part.operands)
            assert len({len(step.used[name]) for name in part.paired}) <= 1


@pytest.mark.parametrize("name", [name for name in EXPLANATIONS if name.startswith("conv2d")])
def test_input_gradient_is_the_cross_correlation_of_the_spread_gradient_with_the_rotated_weight(name):
    grids = EXPLANATIONS[name]().grids
    options = {"dilation": (2, 1), "groups": 2} if "everything" in name else {}
    by_rotation = torch.nn.functional.conv2d(grids["dL/dy spread"].values, grids["w rotated"].values, **options)
    assert torch.equal(by_rotation, grids["dL/dx"].values)


@explanations
def test_page_is_whole_without_a_network(build):
    explanation = build()
    page = as_page(explanation)
    assert not re.search(r"https?:|src=|@import|url\(", page)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S)[1])
    assert [part["result"] for part in data["passes"]] == [part.result for part in explanation.passes]
    for part, told in zip(explanation.passes, data["passes"], strict=True):
        assert set(told["operands"]) | {part.result} <= set(data["grids"])
        assert len(told["signs"]) == len(told["operands"])
        assert [step["used"] for step in told["steps"]] == [step.used for step in part.steps]


def page_of(layer):
    return as_page(EXPLANATIONS[layer]())


@pytest.mark.parametrize("layer", LAYERS)
def test_page_holds_the_code_of_every_result_as_it_stands_in_the_package(layer):
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page_of(layer), re.S)[1])
    held = {code["anchor"]: code for code in data["code"]}
    assert {part["code"] for part in data["passes"]} <= set(held)
    assert {part["result"] for part in data["passes"]} <= set(sources.code_of(layer))
    for code in held.values():
        lines = (sources.PACKAGE.parent / code["path"]).read_text(encoding="utf-8").splitlines()
        text = code["text"].splitlines()
        assert lines[code["first"] - 1 : code["first"] - 1 + len(text)] == text
        assert code["name"].rpartition(".")[2] in text[0] + text[1]


@pytest.mark.parametrize("layer", LAYERS)
def test_page_holds_the_derivation_and_its_links_lead_to_code_on_the_page(layer):
    section = sources.derivation_of(layer)
    assert section in page_of(layer)
    links = set(re.findall(r'href="#([^"]+)"', section))
    assert links
    assert links <= {sources.anchor(code) for code in sources.code_of(layer).values()}


def test_page_without_docs_has_the_code_alone(monkeypatch):
    monkeypatch.setattr(sources, "DERIVATIONS", None)
    assert '<section id="derivation"></section>' in page_of("linear")


@pytest.mark.parametrize("language", ["en", "vi"])
def test_every_formula_of_the_derivations_becomes_mathml(language):
    text = sources.DERIVATIONS.with_name(f"derivations.{language}.md").read_text(encoding="utf-8")
    formulas = [block or inline for block, inline in re.findall(r"```math\n(.*?)```|\$`(.*?)`\$", text, re.S)]
    assert len(formulas) > 150
    for formula in formulas:
        assert ElementTree.fromstring(mathml(formula)).tag == "math"


def test_mathml_is_what_the_formula_says():
    assert (
        mathml("x_i^2")
        == '<math display="inline"><mrow><msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup></mrow></math>'
    )
    assert "<mfrac><mi>a</mi><mrow><mi>b</mi><mo>&lt;</mo><mi>c</mi></mrow></mfrac>" in mathml(r"\frac a{b<c}")
    for wrong in (r"\unknown x", "{x", r"\frac a"):
        with pytest.raises(ValueError, match=r"not known|is missing"):
            mathml(wrong)


@explanations
def test_text_prints_every_step_and_torchs_result(build):
    explanation = build()
    text = as_text(explanation)
    assert all(step.text in text for part in explanation.passes for step in part.steps)
    assert "torch " in text


COMMAND = ["explain", "conv2d", "--input", "4x4", "--kernel", "3x3", "--stride", "1", "--padding", "0"]


def test_command_prints_windows_sums_and_torchs_result(capsys):
    values = ["1", "0", "0", "0", "0", "1", "0", "0", "0", "0", "1", "0", "0", "0", "0", "1"]
    assert main([*COMMAND, "--no-bias", "--input-values", *values, "--weight-values", "1 0 0, 0 1 0, 0 0 1"]) == 0
    printed = capsys.readouterr().out
    assert "y[0,0,0,0] = 1·1 + 0·0 + 0·0 + 0·0 + 1·1 + 0·0 + 0·0 + 0·0 + 1·1 = 3" in printed
    assert "Every result is exactly torch.nn's." in printed


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_a_default_example(layer, capsys):
    """With the gradients of all that it learns."""
    assert main(["explain", layer]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{layer}: input ")
    assert layer not in ("conv2d", "conv_transpose2d", "linear", "lstm") or "── Gradient of the bias" in printed


def test_every_explained_layer_is_tried_here():
    assert {name.partition(" ")[0] for name in EXPLANATIONS} == set(LAYERS)


def test_pictures_are_written(tmp_path, capsys):
    from PIL import Image

    png, gif = tmp_path / "relu.png", tmp_path / "relu.gif"
    assert main(["explain", "relu", "--input", "1x2", "--png", str(png), "--gif", str(gif)]) == 0
    with Image.open(png) as picture, Image.open(gif) as animation:
        assert min(picture.size) > 100
        assert animation.n_frames == 4  # two cells of y, two of dL/dx
    assert capsys.readouterr().out == f"wrote {png}\nwrote {gif}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conv2d", "--input", "four"], "'four' is not a size; write it like 4x4"),
        (["conv2d", "--input", "4x4", "--input-values", "1 2 3"], "1×1×4×4 needs 16 numbers, but 3 were given"),
        (["conv2d", "--input-values", "a"], "'a' is not a number"),
        (["conv2d", "--input", "2x2"], "Kernel size can't be greater than actual input size"),
        (["conv2d", "--input", "1x2x3x4x5"], "give HxW, CxHxW or NxCxHxW"),
        (["conv2d", "--input", "3x4x4", "--groups", "2"], "must divide into as many groups"),
        (["conv2d", "--stride", "0"], "non-positive stride"),
        (["conv2d", "--input", "0x4"], "every size must be at least 1"),
        (["conv2d", "--input", "64x64"], "make --input or the layer smaller"),
        (["conv2d", "--html", "/no/such/folder/page.html"], "cannot write /no/such/folder/page.html"),
        (["max_pool2d", "--padding", "3"], "pad"),
        (["linear", "--input", "4"], "give NxI"),
        (["linear", "--no-bias", "--bias-values", "1", "2"], "give one of the two"),
        (["conv_transpose2d", "--input", "4x2x2", "--out-channels", "3", "--groups", "2"], "do not divide so"),
        (["conv_transpose2d", "--output-padding", "2"], "output_padding"),
        (["softmax", "--input", "2x3x4"], "give NxC"),
        (["layer_norm", "--input", "4"], "give NxD"),
        (["embedding", "--input", "2x3"], "give the tokens' number, and VxD"),
        (["embedding", "--input", "1", "--input-values", "4"], "the table has the rows 0 to 3"),
        (["attention", "--keys", "0"], "--keys 0: every size must be at least 1"),
        (["attention", "--input", "50x9", "--keys", "50"], "make --input or the layer smaller"),
        (["lstm", "--weight-values", "1"], "8×4 needs 32 numbers, but 1 were given"),
        (["lstm", "--hidden", "70"], "make --input or the layer smaller"),
        (["cross_entropy", "--targets", "1", "7"], "give 2 classes from 0 to 2"),
        (["batch_norm", "--input", "1x3"], "more than 1 value per channel"),
        (["relu", "--input", "40x40", "--gif", "/tmp/unwritten.gif"], "make --input smaller"),
        (["relu", "--steps", "-1"], "'-1' is not a whole number of at least 0"),
        (["softplus"], "invalid choice"),
    ],
)
def test_a_users_mistake_ends_in_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run(lambda: main(["explain", *arguments]))
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
