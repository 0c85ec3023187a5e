"""Every predicate of the mode we run in, asked in every mode."""

import ast
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import torchfromscratch
from torchfromscratch.kernels import execution

PACKAGE = Path(torchfromscratch.__file__).parent

# How torch is asked for the mode.
QUESTIONS = {
    "get_proxy_mode",
    "is_autocast_cpu_enabled",
    "is_autocast_enabled",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "is_scripting",
    "is_tracing",
}

# Before torch 2.8, Dynamo cannot tell for what it traces.
TAKEN_FOR_THE_OTHER = "strict" if torch.__version__ < "2.7" else "compile" if torch.__version__ < "2.8" else None

Question = Callable[[Tensor], Tensor]


class Asking(torch.nn.Module):
    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question

    def forward(self, x: Tensor) -> Tensor:
        return self.question(x)


def in_autograd(question: Question, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return question(x.requires_grad_())


def in_compile(question: Question, x: Tensor) -> Tensor:
    return torch.compile(question, backend="eager", fullgraph=True)(x)


def in_export(question: Question, x: Tensor, strict: bool = False) -> Tensor:
    return torch.export.export(Asking(question), (x,), strict=strict).module()(x)


MODES: dict[str, Callable[[Question, Tensor], Tensor]] = {
    "eager": lambda question, x: question(x),
    "autograd": in_autograd,
    "compile": in_compile,
    "export": in_export,
    "strict": functools.partial(in_export, strict=True),
    "jit.trace": lambda question, x: torch.jit.trace(question, x)(x),
    "make_fx": lambda question, x: make_fx(question)(x)(x),
    "vmap": lambda question, x: torch.vmap(question)(x),
    "grad": lambda question, x: torch.func.grad(lambda x: question(x).sum())(x),
    "jvp": lambda question, x: torch.func.jvp(question, (x,), (x,))[1],
}


def truth_table() -> dict[tuple[str, str], bool]:
    """(predicate, mode) → what the docstring says."""
    assert execution.__doc__
    rows = [line.split() for line in execution.__doc__.split("\n\n")[2].splitlines()]
    assert rows[0] == ["predicate", *MODES]
    return {(row[0], mode): cell == "x" for row in rows[1:] for mode, cell in zip(MODES, row[1:], strict=True)}


def test_the_table_has_every_predicate() -> None:
    predicates = {name for name in vars(execution) if name.split("_")[0] in ("is", "has", "in", "needs")}
    assert {name for name, _ in truth_table()} == predicates - {"is_autocasting", "is_any_autocast_enabled"}


@functools.cache
def answers(mode: str) -> dict[str, bool]:
    """What each predicate says in a mode, as bits of the number that a tensor is multiplied by there."""
    names = sorted({name for name, _ in truth_table()})

    def question(x: Tensor) -> Tensor:
        bits = 1
        for n, name in enumerate(names, 1):
            predicate = getattr(execution, name)
            of_mode = name.startswith("is_") and name != "is_batched"
            bits += 2**n if (predicate() if of_mode else predicate(x)) else 0
        return x * bits

    with torch.no_grad():
        factors = MODES[mode](question, torch.ones(3)).tolist()
    assert len({*factors}) == 1
    return {name: bool(int(factors[0]) >> n & 1) for n, name in enumerate(names, 1)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("name", "mode"), truth_table())
def test_each_cell_of_the_table(name: str, mode: str) -> None:
    is_other = mode == TAKEN_FOR_THE_OTHER and name in ("is_exporting", "in_compiled_cpu_code")
    assert answers(mode)[name] is (truth_table()[name, mode] != is_other)


def test_autocasting() -> None:
    assert not execution.is_autocasting("cpu")
    assert not execution.is_autocasting("meta")
    assert not execution.is_any_autocast_enabled()
    with torch.autocast("cpu", torch.bfloat16):
        assert execution.is_any_autocast_enabled()
        assert execution.is_autocasting("cpu")
        assert not execution.is_autocasting("cuda")


def test_no_other_file_asks_torch_for_the_mode() -> None:
    for file in {*PACKAGE.rglob("*.py")} - {PACKAGE / "kernels" / "execution.py", PACKAGE / "_torch_private.py"}:
        nodes = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute | ast.ImportFrom)
        ]
        asked = {ast.unparse(node).split(".")[-1] for node in nodes if ast.unparse(node).startswith("torch.")}
        froms = [
            node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch.")
        ]
        assert not QUESTIONS & {*asked, *(alias.name for node in froms for alias in node.names)}, file
