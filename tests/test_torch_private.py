"""Every private name of torch is in one file, exists, and can be done without."""

import ast
import importlib
import inspect
import pkgutil
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import torchfromscratch
from torchfromscratch import _torch_private as private
from torchfromscratch import modes, nn

PACKAGE = Path(torchfromscratch.__file__).parent
HOOKS = [(name, hook) for hook, names in private.HOOKS.items() for name in names.split()]

# Private names of others than torch.
NOT_TORCHS = {
    "_fill_text",  # argparse, which documents none to override
    "_getframe",  # sys
    "_current_frames",
    "_replace",  # NamedTuple
    "_file_name",  # TensorBoard
}

TREES = {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def private_names(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Those of torch that a file holds: imported from it, looked up in it, or of nothing that we define."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            yield from filter(is_private, [*str(node.module).split("."), *[alias.name for alias in node.names]])
        elif isinstance(node, ast.Import):
            yield from [part for alias in node.names for part in alias.name.split(".") if is_private(part)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            yield from () if node.attr in own and not ast.unparse(node).startswith("torch.") else (node.attr,)


def test_no_other_file_holds_a_private_name_of_torch() -> None:
    own = {name for tree in TREES.values() for name in defined(tree)}
    hooks = {hook for _, hook in HOOKS}
    for file, tree in TREES.items():
        if file.name != "_torch_private.py":
            assert {*private_names(tree, own - hooks)} - NOT_TORCHS - (
                hooks if file.parent.name == "nn" else set()
            ) == set(), file


def test_every_hook_that_a_class_overrides_is_asked_for() -> None:
    """A private method of torch.nn's that one of ours has as well."""
    overridden = set()
    for found in pkgutil.walk_packages(nn.__path__, "torchfromscratch.nn."):
        for name, cls in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
            bases = [base for base in cls.__mro__ if base.__module__.startswith("torch.nn")]
            ours = [kind for kind in cls.__mro__ if kind.__module__.startswith("torchfromscratch")]
            methods = {method for kind in ours for method in vars(kind) if is_private(method)}
            overridden |= {(name, method) for method in methods if any(method in vars(base) for base in bases)}
    public = {(name, method) for name, method in overridden if hasattr(torch.nn, name) and not name.startswith("Lazy")}
    assert public
    assert public <= {*HOOKS}


def test_a_hook_that_is_renamed_is_an_import_error() -> None:
    """That names it, and no module that runs the built-in layer in silence."""
    program = "; ".join(
        [
            "import torch",
            "torch.nn.Conv2d._conv_impl = torch.nn.Conv2d._conv_forward",
            "forward = torch.nn.Conv2d.forward",
            "forward.__code__ = (lambda self, input: self._conv_impl(input, self.weight, self.bias)).__code__",
            "import torchfromscratch",
        ]
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"ImportError: torch {torch.__version__} has no torch.nn.Conv2d._conv_forward, without which" in ran.stderr
    assert ran.returncode == 1


@pytest.mark.parametrize(("name", "hook"), HOOKS)
def test_so_is_each_that_is_gone(name: str, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for base in getattr(torch.nn, name).__mro__:
        if hook in vars(base):
            monkeypatch.delattr(base, hook)
    with pytest.raises(ImportError, match=rf"has no torch\.nn\.{name[:-2]}\w*\.{hook}, without which"):
        runpy.run_path(str(PACKAGE / "_torch_private.py"))


@pytest.mark.parametrize("name", private.FALLBACKS)
def test_this_version_has(name: str) -> None:
    part: Any = torch
    for step in name.split("."):
        part = getattr(part, step)


def test_modes_see_what_the_functions_of_torch_call() -> None:
    assert modes._calls_layers(torch.Tensor.backward)
    assert modes._calls_layers(torch.nn.functional.gumbel_softmax)


def test_without_a_name_that_is_needed_an_error_says_so() -> None:
    with pytest.raises(NotImplementedError, match=r"has no torch\.overrides\._pop_mode"):
        private.FALLBACKS["overrides._pop_mode"]()


def in_every_mode(question: Callable[[Tensor], bool]) -> list[bool]:
    """Of a plain tensor, in vmap, grad and jvp."""
    answers = []

    def ask(x: Tensor) -> Tensor:
        answers.append(bool(question(x)))
        return x.sum()

    x = torch.ones(2, 3)
    ask(x)
    torch.vmap(ask)(x)
    torch.func.grad(ask)(x)
    torch.func.jvp(ask, (x,), (x,))
    return answers


@pytest.mark.parametrize("name", ["is_batchedtensor", "is_legacy_batchedtensor", "is_functorch_wrapped_tensor"])
def test_without_torch_func_wrapped_tensors_are_known(name: str) -> None:
    """And taken for batches, which may be done less with."""
    fallback = private.FALLBACKS[f"_C._functorch.{name}"]
    assert in_every_mode(fallback) == in_every_mode(private.is_functorch_wrapped_tensor) == [False, True, True, True]
    assert not fallback(torch.ones(2, requires_grad=True))


def test_without_its_level_forward_mode_is_known() -> None:
    fallback = private.FALLBACKS["autograd.forward_ad._current_level"]
    assert in_every_mode(lambda x: fallback()) == in_every_mode(lambda x: private.is_in_forward_mode())


@pytest.mark.parametrize("set_mode", [private.set_forward_mode, private._set_forward_mode])
def test_forward_mode_can_be_set(set_mode: Any) -> None:
    x, written = torch.ones(3), torch.zeros(3)
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(x, x)
        with set_mode(False):
            written.copy_(dual)
            assert forward_ad.unpack_dual(dual * 2).tangent is None
            with set_mode(True):
                assert forward_ad.unpack_dual(dual * 2).tangent is not None
        assert forward_ad.unpack_dual(written).tangent is None


def test_without_unsafe_view_a_copy_is_no_view() -> None:
    x = torch.ones(2, 3, requires_grad=True) * 1
    for view in (private.unsafe_view, private.FALLBACKS["ops.aten._unsafe_view.default"]):
        assert not private.is_view(view(x, [6]))
        assert view(x, [6]).shape == (6,)


@pytest.mark.parametrize("kind", ["causal_upper_left", "causal_lower_right"])
def test_without_materialize_a_causal_bias_is_written_out(kind: str) -> None:
    bias = getattr(importlib.import_module("torch.nn.attention.bias"), kind)(3, 5)
    described = type("Bias", (), {"variant": bias.variant, "seq_len_q": 3, "seq_len_kv": 5})()
    cpu = torch.device("cpu")
    torch.testing.assert_close(private.causal_mask(described, cpu), private.causal_mask(bias, cpu).bool())


def test_layers_without_any_optional_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower, and the same."""
    for name, fallback in private.FALLBACKS.items():
        if not name.startswith(("overrides", "utils", "autograd.forward_ad._current", "_dynamo")):
            assert any(value is found(name) for value in vars(private).values())
            for module in [module for key, module in sys.modules.items() if key.startswith("torchfromscratch")]:
                for known in [key for key, value in vars(module).items() if value is found(name)]:
                    monkeypatch.setattr(module, known, fallback)
    monkeypatch.setattr(private, "is_in_forward_mode", private._is_in_forward_mode)
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()
    )
    ours = torchfromscratch.convert(theirs)
    x = torch.randn(3, 2, 6, 6)

    def results(model: torch.nn.Module) -> list[Tensor]:
        model.load_state_dict(theirs.state_dict())
        loss = lambda x: model(x).square().sum()  # noqa: E731
        jacobian = torch.func.jacrev(loss)(x)
        _, tangent = torch.func.jvp(loss, (x,), (x,))
        each = torch.vmap(model)(x.unsqueeze(0))
        return [model(x), jacobian, tangent, each]

    torch.testing.assert_close(results(ours), results(theirs))


def found(name: str) -> Any:
    part: Any = torch
    for step in name.split("."):
        part = getattr(part, step)
    return part


def test_what_torch_compile_raises_is_known() -> None:
    assert private.compiler_error() is found("_dynamo.exc.BackendCompilerFailed")
