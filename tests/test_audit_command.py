"""`python -m torchfromscratch audit MODULE:FACTORY`, as a user runs it."""

import re
import sys

import pytest
import torch

from torchfromscratch.__main__ import main
from torchfromscratch.entry_point import run as run_command


class Halving(torch.nn.AvgPool2d):
    """Whose forward is kept, and so the built-in kernels that it calls."""

    def forward(self, input):
        return torch.nn.functional.avg_pool2d(input, self.kernel_size)


def small():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(0.5),
        Halving(2),
    )


def texts():
    return torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 2))


class InFloat32(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, input):
        return self.linear(input.float())


def needs_an_argument(width):
    return torch.nn.Linear(width, 2)


def no_model():
    return 3


NUMBER = 3
HERE = __name__


def run(capsys, *options):
    assert main(["audit", *options]) == 0
    return capsys.readouterr().out


def test_it_shows_layers_kernels_differences_time_and_memory(capsys):
    out = run(capsys, f"{HERE}:small", "--input", "2x3x8x8")
    assert "4 layers replaced: " in out
    assert "1 Conv2d" in out
    assert "left: 4: Halving overrides the forward" in out
    assert re.search(r"aten::convolution_backward +1 +0", out)
    assert re.search(r"aten::avg_pool2d +1 +1\n", out)
    assert re.search(r"all +[1-9]\d* +2\n", out)
    assert re.search(r"distance from torch.nn's step in float64, 2x3x8x8 +torch.nn +by hand\n", out)
    assert re.search(r"output in float64 +0 +\de-1\d\n", out)
    assert re.search(r"worst gradient in float64 +0 +\de-1\d +\d.(weight|bias)\n", out)
    assert re.search(r"output in float32 +\de-0\d +\de-0\d\n", out)
    assert re.search(r"worst gradient in float32 +\de-0\d +\de-0\d +\d.(weight|bias)\n", out)
    assert "torch.nn's own\n  rounding" in out
    assert re.search(r"time in ms, the fastest of 3 +\d+ +\d+  \d+\.\d\d ×", out)
    assert re.search(r"memory in MiB.* +\d+ +\d+  \d+\.\d\d ×", out)


def test_integers_are_for_texts_and_timing_can_be_left_out(capsys):
    out = run(capsys, f"{HERE}:texts", "--input", "2x5", "--integers", "10", "--repetitions", "0")
    assert re.search(r"aten::embedding +1 +0\n", out)
    assert re.search(r"all +[1-9]\d* +0\n", out)
    assert "one step" not in out


def test_a_model_without_gradients_in_evaluation_mode(capsys):
    out = run(capsys, "torch.nn:Identity", "--input", "2x3", "--eval")
    assert "0 layers replaced" in out
    assert re.search(r"all +0 +0\n", out)


def test_a_model_that_insists_on_its_type_is_compared_in_it(capsys):
    out = run(capsys, f"{HERE}:InFloat32", "--input", "2x3")
    assert "distance from torch.nn's step in float32" in out
    assert "output in float32" in out
    assert "float64" not in out


def test_a_terminal_shows_what_is_being_done(capsys, monkeypatch):
    run(capsys, f"{HERE}:small", "--input", "2x3x8x8")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["audit", f"{HERE}:small", "--input", "2x3x8x8"]) == 0
    shown = capsys.readouterr().err.split("\r\033[K")
    assert [re.sub(r"^ +\d+ s  | …$", "", line) for line in shown if line] == [
        f"building {HERE}:small",
        "a step of torch.nn in float64, to measure the others by",
        "a step of torch.nn in float64",
        "a step by hand in float64",
        "a step of torch.nn in float32",
        "a step by hand in float32",
        "3 steps of each for their time, and one for its memory",
    ]
    assert shown[-1] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["resnet18"], "is named MODULE:FACTORY"),
        (["no_such_module:model"], "cannot import 'no_such_module'"),
        (["torchvision.models:resnet17"], "did you mean resnet1"),
        (["torchvision.models:"], "is named MODULE:FACTORY"),
        ([":resnet18"], "is named MODULE:FACTORY"),
        (["torchvision.models:resnet"], "cannot be called"),
        ([f"{HERE}:needs_an_argument"], "it is called without arguments"),
        ([f"{HERE}:no_model"], "gives 3, which is no torch.nn.Module"),
        ([f"{HERE}:NUMBER"], "is 3, which cannot be called"),
        ([f"{HERE}:small", "--input", "2x5x8x8"], "cannot take a step with float32 of 2x5x8x8"),
        ([f"{HERE}:small", "--input", "2,3"], "a size is written"),
        ([f"{HERE}:small", "--device", "nowhere"], "cannot use --device nowhere"),
        ([f"{HERE}:small", "--dtype", "int8"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(capsys, options, message):
    with pytest.raises(SystemExit) as exit:
        run_command(lambda: main(["audit", *options]))
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
