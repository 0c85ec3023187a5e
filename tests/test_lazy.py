"""Lazy modules: as torch.nn's before their first call and after it, and by hand from then on."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch
from tests.subjects import assert_equal, assert_same_outcome, pull_back
from torchfromscratch import convert, nn
from torchfromscratch.nn import UninitializedParameter

Build = Callable[[Any], torch.nn.Module]


@dataclass(frozen=True)
class Lazy:
    """A lazy module and the one that it becomes, for any namespace `nn`, and an input that both take."""

    name: str
    build: Build
    become: Build
    shape: tuple[int, ...]

    @property
    def input(self) -> Tensor:
        return torch.linspace(-1, 1, torch.Size(self.shape).numel(), dtype=torch.float64).view(self.shape)


def _norm(kind: str, dims: int, **options: Any) -> Lazy:
    return Lazy(
        f"{kind}Norm{dims}d {options or ''}".strip(),
        lambda nn: getattr(nn, f"Lazy{kind}Norm{dims}d")(dtype=torch.float64, **options),
        lambda nn: getattr(nn, f"{kind}Norm{dims}d")(4, dtype=torch.float64, **options),
        (2, 4, 3, 3, 3)[: dims + 2],
    )


def _convolution(name: str, dims: int, **options: Any) -> Lazy:
    return Lazy(
        f"{name}{dims}d {options or ''}".strip(),
        lambda nn: getattr(nn, f"Lazy{name}{dims}d")(6, 2, dtype=torch.float64, **options),
        lambda nn: getattr(nn, f"{name}{dims}d")(4, 6, 2, dtype=torch.float64, **options),
        (2, 4, 3, 3, 3)[: dims + 2],
    )


CASES = [
    Lazy(
        "Linear",
        lambda nn: nn.LazyLinear(3, dtype=torch.float64),
        lambda nn: nn.Linear(4, 3, dtype=torch.float64),
        (2, 4),
    ),
    Lazy(
        "Linear without bias",
        lambda nn: nn.LazyLinear(3, bias=False, dtype=torch.float64),
        lambda nn: nn.Linear(4, 3, bias=False, dtype=torch.float64),
        (5, 2, 4),
    ),
    *[_convolution(name, dims) for name in ("Conv", "ConvTranspose") for dims in (1, 2, 3)],
    _convolution("Conv", 2, groups=2, bias=False, padding=1, padding_mode="reflect"),
    _convolution("ConvTranspose", 2, stride=2, output_padding=1, groups=2),
    *[_norm(kind, dims, affine=True, track_running_stats=True) for kind in ("Batch", "Instance") for dims in (1, 2, 3)],
    _norm("Batch", 2, affine=False, momentum=None),
    _norm("Batch", 1, track_running_stats=False),
    _norm("Instance", 2, affine=False, track_running_stats=False),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Lazy:
    return request.param


def both(build: Build) -> tuple[torch.nn.Module, torch.nn.Module]:
    """By hand and torch.nn's, from the same seed."""
    modules = []
    for library in (nn, torch.nn):
        torch.manual_seed(0)
        modules.append(build(library))
    return modules[0], modules[1]


def called(module: torch.nn.Module, input: Tensor) -> list[Tensor]:
    """The output, the gradients of input and parameters, and the buffers afterwards; random parameters from seed 1."""
    torch.manual_seed(1)
    input = input.clone().requires_grad_()
    output = module(input)
    return [*pull_back(output, [input, *module.parameters()]), *module.buffers()]


def materialized(case: Lazy, library: Any = nn) -> torch.nn.Module:
    module = case.build(library)
    called(module, case.input)
    return module


def uninitialized(module: torch.nn.Module) -> list[str]:
    return [name for name, value in module.state_dict().items() if torch.nn.parameter.is_lazy(value)]


def test_every_lazy_module_of_torch_is_tried() -> None:
    """Fails when a new version of torch brings another."""
    names = {name for name in vars(torch.nn) if name.startswith("Lazy")}
    assert names <= {type(case.build(nn)).__name__ for case in CASES}


def test_before_the_first_call(case: Lazy) -> None:
    ours, theirs = both(case.build)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert uninitialized(ours) == uninitialized(theirs)
    for built_in in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d):
        assert isinstance(ours, built_in) == isinstance(theirs, built_in)


def test_the_first_call_makes_it_ours(case: Lazy) -> None:
    """With torch's values, gradients, class name and parameters, and without a built-in layer from the start."""
    ours, theirs = both(case.build)
    expected = called(theirs, case.input)
    with torchfromscratch.audit():
        assert_equal(called(ours, case.input), expected)
    assert type(ours) is type(case.become(nn))
    assert repr(ours) == repr(theirs)
    assert_equal(called(ours, case.input), called(theirs, case.input))


def outcome(call: Callable[[], Any]) -> Any:
    """The tensors that `call` gives, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,  # torch copies no uninitialized buffer
    "pickle": lambda module: pickle.loads(pickle.dumps(module)).double(),  # which forgets the type of a lazy parameter
}


@pytest.mark.parametrize("duplicate", COPIES)
def test_copies(case: Lazy, duplicate: str) -> None:
    """Of a lazy module are lazy, of one that was called they are what it became."""
    ours, theirs = both(case.build)
    twins = [outcome(lambda module=module: COPIES[duplicate](module)) for module in (ours, theirs)]
    if isinstance(twins[1], type):
        assert twins[0] is twins[1]
    else:
        assert type(twins[0]) is type(ours)
        assert_equal(called(twins[0], case.input), called(twins[1], case.input))
    called(ours, case.input)
    twin = COPIES[duplicate](ours)
    assert type(twin) is type(case.become(nn))
    assert_equal(called(twin, case.input), called(ours, case.input))


def test_state_dicts_both_ways(case: Lazy) -> None:
    """A lazy module takes the sizes of what it loads, also torch.nn's, and a regular one takes nothing from it."""
    lazy, source = both(case.build), materialized(case, torch.nn)
    for module in lazy:
        module.load_state_dict(source.state_dict())
        assert not uninitialized(module)
    # torch's LazyInstanceNorm then knows num_features no more than before, and refuses its input
    assert_same_outcome(*[outcome(lambda module=module: called(module, case.input)) for module in lazy])
    lazy = both(case.build)
    if names := uninitialized(lazy[1]):
        lazy[0].load_state_dict(lazy[1].state_dict())
        assert uninitialized(lazy[0]) == names
        with pytest.raises(RuntimeError, match="shape of an uninitialized"):
            case.become(nn).load_state_dict(lazy[0].state_dict())


def test_errors(case: Lazy) -> None:
    """torch's exceptions and messages, and a lazy module stays one after the wrong input."""
    wrong = [torch.zeros(()), torch.zeros((1,) * 7), torch.zeros((*case.shape[:1], 3, *case.shape[2:]))]
    for input in wrong:
        found = []
        for module in both(case.build):
            try:
                module(input)
            except Exception as error:
                found.append((type(error), str(error).splitlines()[0] if uninitialized(module) else ""))
            else:
                found.append(())
            found.append(uninitialized(module))
        assert found[:2] == found[2:]


def test_memory_cannot_be_shared_before_the_first_call(case: Lazy) -> None:
    module = case.build(nn)
    if uninitialized(module):
        with pytest.raises(RuntimeError, match="share memory on an uninitialized"):
            module.share_memory()


def test_hooks(case: Lazy) -> None:
    """A user's hooks run at the first call as at any other."""
    module, runs = case.build(nn), []
    module.register_forward_pre_hook(lambda *_: runs.append("before"))
    module.register_forward_hook(lambda *_: runs.append("after"))
    for _ in range(2):
        module(case.input)
    assert runs == ["before", "after"] * 2


def test_convert_both_ways(case: Lazy) -> None:
    """A lazy torch.nn module becomes ours by its first call, or torch's again if it was converted back."""
    lazy, expected = case.build(torch.nn), materialized(case, torch.nn)
    assert type(convert(lazy)) is type(case.build(nn))
    called(lazy, case.input)
    assert type(lazy) is type(case.become(nn))
    assert type(convert(lazy, to="torch")) is type(expected)
    back = convert(case.build(nn), to="torch")
    assert type(back) is type(case.build(torch.nn))
    called(back, case.input)
    assert type(back) is type(expected)


class Scaled(torch.nn.Linear):
    """A layer of a user's own, and its lazy form below."""

    def scaled(self, input: Tensor) -> Tensor:
        return 2 * self(input)


class LazyScaled(torch.nn.LazyLinear):
    cls_to_become = Scaled


def test_a_users_lazy_class_becomes_the_users_class_by_hand() -> None:
    module, x = convert(LazyScaled(3)), torch.ones(2, 4)
    with torchfromscratch.audit():
        module(x)
        assert_equal([module.scaled(x)], [2 * module(x)])
    assert isinstance(module, Scaled)
    assert isinstance(module, nn.Linear)


def test_a_users_overridden_computation_is_kept() -> None:
    class Doubled(torch.nn.LazyConv2d):
        def _conv_forward(self, *arguments: Any) -> Tensor:
            return 2 * super()._conv_forward(*arguments)

    class Zero(torch.nn.InstanceNorm2d):
        def _apply_instance_norm(self, input: Tensor) -> Tensor:
            return 0 * input

    for module in (Doubled(3, 2), Zero(4)):
        with pytest.warns(UserWarning, match="overrides the forward"):
            convert(module)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_a_network_of_lazy_modules_trains(compiled: bool) -> None:
    """As torch.nn's does, from a dry run on."""
    losses = []
    for library in (nn, torch.nn):
        torch.manual_seed(0)
        network = library.Sequential(
            library.LazyConv2d(4, 3),
            library.LazyBatchNorm2d(),
            library.ReLU(),
            library.Flatten(),
            library.LazyLinear(3),
        ).double()
        x, target = torch.randn(8, 2, 6, 6, dtype=torch.float64), torch.arange(8) % 3
        network(x)
        assert not any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters())
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        step = torch.compile(network, backend="aot_eager", fullgraph=True) if compiled else network
        losses.append([])
        for _ in range(3):
            optimizer.zero_grad()
            loss = library.functional.cross_entropy(step(x), target)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.detach())
    assert_equal(*losses)
