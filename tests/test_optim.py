"""Optimisers: step by step the same as torch.optim, and interchangeable with it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests import lacks
from torchfromscratch import optim

STEPS = 8

RATES = [
    {},
    {"lr": 0.05},
    {"lr": torch.tensor(0.05)},
    pytest.param({"lr": torch.tensor([0.05])}, marks=lacks.marked(lacks.rate_with_a_dimension())),
    {"maximize": True},
]
SGD_OPTIONS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]
ADAM_OPTIONS = [
    {},
    {"weight_decay": 0.1},
    {"amsgrad": True, "betas": (0.5, 0.9)},
    {"eps": 1e-3, "weight_decay": 0.2, "amsgrad": True},
    {"betas": (torch.tensor(0.8), torch.tensor(0.95))},
]
OPTIONS = [
    *[("SGD", options) for options in SGD_OPTIONS],
    *[(name, options) for name in ("Adam", "AdamW") for options in ADAM_OPTIONS],
    pytest.param(
        "Adam",
        {"decoupled_weight_decay": True, "weight_decay": 0.3},
        marks=lacks.marked(lacks.decoupled_weight_decay()),
    ),
]


class Operations(TorchDispatchMode):
    """Counts operations on tensors that are not in CPU memory, but for views and their like."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        tensors = [arg for arg in tree_leaves(args) if isinstance(arg, Tensor)]
        self.count += any(tensor.is_meta for tensor in tensors) and "detach" not in str(function)
        return function(*args, **(kwargs or {}))


def parameters(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), ()]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def train(optimizer: torch.optim.Optimizer, steps: int = STEPS, scheduler: Any = None) -> list[Tensor]:
    """Pull every parameter towards 2, and hand back where they are."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([(tensor - 2).abs().pow(3).sum().float() for tensor in tensors]).sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [tensor.detach() for tensor in tensors]


def build(namespace: Any, name: str, dtype: torch.dtype = torch.float32, **options: Any) -> torch.optim.Optimizer:
    return getattr(namespace, name)(parameters(dtype), foreach=False, **options)


def both(name: str, **options: Any) -> list[torch.optim.Optimizer]:
    return [build(namespace, name, **options) for namespace in (optim, torch.optim)]


def assert_equal(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_every_step_is_bit_equal_to_torch(name: str, options: dict, rate: dict) -> None:
    ours, theirs = both(name, **options, **rate)
    for _ in range(STEPS):
        assert_equal(train(ours, 1), train(theirs, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_one_operation_of_all_parameters_after_the_other(
    name: str, options: dict, maximize: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As foreach=True asks for, and a GPU gets by default; bit-equal to torch.optim's foreach."""
    if any(isinstance(beta, Tensor) for beta in options.get("betas", ())):
        pytest.skip("torch's constructors take no such betas with foreach")
    monkeypatch.setattr(getattr(optim, name), "_update", None)
    ours, theirs = [
        getattr(namespace, name)(parameters(dtype), foreach=True, **options, maximize=maximize)
        for namespace in (optim, torch.optim)
    ]
    assert_equal(train(ours), train(theirs))


def test_a_gpu_gets_one_operation_of_all_parameters() -> None:
    """As counted on meta tensors, of torch.optim and ours."""
    counts = []
    for name, options in [("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}), ("Adam", {})]:
        for amount in (1, 20):
            tensors = [torch.empty(3, 4, device="meta", requires_grad=True) for _ in range(amount)]
            for tensor in tensors:
                tensor.grad = torch.empty_like(tensor)
            optimizer = getattr(optim, name)(tensors, **options)
            optimizer.step()
            with Operations() as operations:
                optimizer.step()
            counts.append(operations.count)
    assert counts[0] == counts[1] <= 5
    assert counts[2] == counts[3] <= 8


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_every_type_is_bit_equal_to_torch(name: str, options: dict, dtype: torch.dtype) -> None:
    ours, theirs = both(name, dtype=dtype, **options)
    assert_equal(train(ours), train(theirs))


@pytest.mark.parametrize(("source", "target"), [(optim, torch.optim), (torch.optim, optim)])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_state_dict_continues_a_run_of_the_other(name: str, options: dict, source: Any, target: Any) -> None:
    expected = train(build(source, name, **options), 2 * STEPS)
    begun = build(source, name, **options)
    continued = build(target, name, **options)
    for tensor, reached in zip(continued.param_groups[0]["params"], train(begun), strict=True):
        tensor.data.copy_(reached)
    continued.load_state_dict(begun.state_dict())
    assert_equal(train(continued), expected)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_state_dict_has_torchs_entries(name: str) -> None:
    for options in ({}, {"momentum": 0.5}) if name == "SGD" else ({}, {"amsgrad": True}):
        ours, theirs = both(name, **options)
        train(ours)
        train(theirs)
        assert_equal(ours.state_dict(), theirs.state_dict())
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_is_a_torch_optimizer_that_copies_and_pickles(name: str) -> None:
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(optim, name)(parameters(), **options)
    assert isinstance(optimizer, getattr(torch.optim, name))
    train(optimizer, 3)
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    expected = train(optimizer)
    for other in copies:
        assert_equal(train(other), expected)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_groups_and_schedulers_follow_torch(name: str) -> None:
    results = []
    for namespace in (optim, torch.optim):
        first, second, third = parameters()
        groups = [{"params": [("a", first)], "lr": 0.1}, {"params": [("b", second)], "weight_decay": 0.2}]
        optimizer = getattr(namespace, name)(groups, lr=0.01)
        optimizer.add_param_group({"params": [("c", third)], "maximize": True})
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.3)
        results.append(train(optimizer, scheduler=scheduler))
    assert_equal(*results)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_closure_is_called_with_gradients_on_and_its_loss_returned(name: str) -> None:
    (tensor, *_) = parameters()
    optimizer = getattr(optim, name)([tensor])
    before = tensor.detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = tensor.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == before.square().sum().item()
    assert not torch.equal(tensor, before)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_parameters_without_gradient_stay(name: str) -> None:
    used, unused, _ = parameters()
    optimizer = getattr(optim, name)([used, unused], weight_decay=0.1)
    before = unused.detach().clone()
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, before)
    assert unused not in optimizer.state


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_sparse_gradients(momentum: float) -> None:
    results = []
    for namespace in (optim, torch.optim):
        table = torch.ones(5, 2, requires_grad=True)
        optimizer = namespace.SGD([table], lr=0.1, momentum=momentum)
        for row in (1, 3, 1):
            table.grad = torch.sparse_coo_tensor([[row]], torch.ones(1, 2), (5, 2), check_invariants=True)
            optimizer.step()
        results.append(table.detach())
    assert_equal(*results)


def test_adam_refuses_sparse_gradients() -> None:
    table = torch.ones(5, 2, requires_grad=True)
    table.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (5, 2), check_invariants=True)
    for namespace in (optim, torch.optim):
        with pytest.raises(RuntimeError, match="sparse"):
            namespace.Adam([table]).step()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": -1}),
        ("SGD", {"momentum": -1}),
        ("SGD", {"weight_decay": -1}),
        ("SGD", {"nesterov": True}),
        ("SGD", {"lr": torch.ones(2)}),
        ("SGD", {"fused": True, "foreach": True}),
        ("Adam", {"eps": -1}),
        ("Adam", {"betas": (1.0, 0.9)}),
        ("Adam", {"betas": (0.9, -0.1)}),
        ("AdamW", {"weight_decay": -1}),
        ("AdamW", {"fused": True, "differentiable": True}),
    ],
    ids=str,
)
def test_bad_options_raise_as_in_torch(name: str, options: dict) -> None:
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        getattr(torch.optim, name)(parameters(), **options)
    with pytest.raises(theirs.type):
        getattr(optim, name)(parameters(), **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("SGD", {"weight_decay": torch.tensor(0.1, dtype=torch.float64, requires_grad=True)}),
        ("Adam", {"weight_decay": 0.1}),
        ("AdamW", {"weight_decay": 0.1}),
    ],
    ids=str,
)
def test_differentiable_steps_have_torchs_gradient(name: str, options: dict) -> None:
    def gradients(namespace: Any) -> tuple[Tensor, ...]:
        start = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
        rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        tensor = start.clone()
        optimizer = getattr(namespace, name)([tensor], lr=rate, differentiable=True, **options)
        for _ in range(3):
            (tensor.grad,) = torch.autograd.grad((tensor - 2).pow(4).sum(), tensor, create_graph=True)
            optimizer.step()
        inputs = [start, rate, *[option for option in options.values() if isinstance(option, Tensor)]]
        return torch.autograd.grad(tensor.sum(), inputs)

    ours = gradients(optim)
    try:
        theirs = gradients(torch.optim)
    except (TypeError, RuntimeError) as error:
        pytest.skip(f"torch: {error}")
    torch.testing.assert_close(ours, theirs)  # same formula, products taken in another order


def test_other_names_are_torchs_or_say_what_would_work() -> None:
    assert optim.lr_scheduler is torch.optim.lr_scheduler
    assert isinstance(optim.SGD(parameters()), optim.Optimizer)
    with pytest.raises(AttributeError, match=r"no hand-written RMSprop; torch\.optim\.RMSprop trains"):
        optim.RMSprop(parameters())
    with pytest.raises(AttributeError, match="has no attribute 'Sgd'"):
        optim.Sgd(parameters())


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("overflow", [False, True])
def test_fused_takes_the_scale_that_a_grad_scaler_leaves_with_it(name: str, overflow: bool) -> None:
    plain, scaled = (getattr(optim, name)(parameters(), fused=fused) for fused in (False, True))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for optimizer, factor in ((plain, 1.0), (scaled, float("inf") if overflow else 8.0)):
        for tensor in optimizer.param_groups[0]["params"]:
            tensor.grad = torch.ones_like(tensor) * factor
    scaler.scale(torch.ones(()))
    if not overflow:
        plain.step()
    scaler.step(scaled)
    assert_equal(*[[*optimizer.param_groups[0]["params"]] for optimizer in (plain, scaled)])
