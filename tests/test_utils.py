"""torch.nn.utils does to our modules what it does to torch.nn's: every name, as a user would call it.

A user's way with a module is a function of the namespace `nn` that returns what there is to see of it: outputs,
gradients, states, texts. Ours and torch.nn's are to look the same, and ours to run by hand all the while.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import utils
from torch.nn.utils import fusion, parametrizations, parametrize, prune, rnn, stateless

import torchfromscratch
from tests.cases import ModuleCase, all_module_cases
from tests.subjects import assert_equal, pull_back, random_tensors, tensors_of
from tests.test_modules import OURS, THEIRS, build, inputs_of, run

Module = torch.nn.Module
Seen = list[Any]
Way = Callable[[Any], Seen]

# Layers of every kind with weights, the weight's name, and the shapes or the integers that they are called with.
LAYERS: dict[str, tuple[Callable[[Any], Module], str, Sequence[Any]]] = {
    "Linear": (lambda nn: nn.Linear(4, 5), "weight", [(3, 4)]),
    "Bilinear": (lambda nn: nn.Bilinear(2, 3, 4), "weight", [(3, 2), (3, 3)]),
    "Conv1d": (lambda nn: nn.Conv1d(2, 3, 3), "weight", [(2, 2, 6)]),
    "Conv2d": (lambda nn: nn.Conv2d(4, 6, 3, groups=2), "weight", [(2, 4, 5, 5)]),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(4, 3, 2), "weight", [(2, 4, 3, 3)]),
    "Embedding": (lambda nn: nn.Embedding(5, 4), "weight", [torch.tensor([[1, 4, 1], [0, 2, 2]])]),
    "EmbeddingBag": (lambda nn: nn.EmbeddingBag(5, 4, mode="sum"), "weight", [torch.tensor([[1, 4, 1], [0, 2, 2]])]),
    "LSTM": (lambda nn: nn.LSTM(3, 4), "weight_hh_l0", [(5, 2, 3)]),
    "GRUCell": (lambda nn: nn.GRUCell(3, 4), "weight_hh", [(2, 3)]),
    "MultiheadAttention": (lambda nn: nn.MultiheadAttention(4, 2), "in_proj_weight", [(3, 2, 4)] * 3),
}


class Doubled(Module):
    """A parametrization with an inverse, which counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return 2 * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2


class EverySecond(prune.BasePruningMethod):
    """A user's own way to prune."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def has_weights(case: ModuleCase) -> bool:
    return next(build(case, OURS).parameters(), None) is not None


def built(nn: Any, layer: str) -> Module:
    torch.manual_seed(0)
    return LAYERS[layer][0](nn).double()


def arguments(layer: str) -> list[Tensor]:
    given = LAYERS[layer][2]
    shapes = [shape for shape in given if not isinstance(shape, Tensor)]
    return random_tensors(*shapes) or list(given)


def step(module: Module, *inputs: Any) -> Seen:
    """The outputs, and the gradients of inputs and parameters."""
    sources = [*tensors_of(inputs), *module.parameters()]
    return pull_back(module(*inputs), sources)


def state(module: Module) -> Seen:
    """What there is to see without calling it."""
    parameters = [name for name, _ in module.named_parameters()]
    buffers = [name for name, _ in module.named_buffers()]
    return [repr(module), parameters, buffers, list(module.state_dict()), *module.state_dict().values()]


def life(module: Module, twin: Module, *inputs: Tensor) -> Seen:
    """A step in training, one in evaluation of a twin that loads what is saved, and one more in training."""
    seen = step(module.train(), *inputs)
    twin.load_state_dict(module.state_dict())
    return [*seen, *step(twin.eval(), *inputs), *step(module, *inputs), *state(module)]


def assert_looks_alike(way: Way) -> None:
    torch.manual_seed(1)
    theirs = way(torch.nn)
    torch.manual_seed(1)
    with torchfromscratch.audit():
        ours = way(torchfromscratch.nn)
    assert len(ours) == len(theirs) > 0
    assert_equal(tensors_of(ours), tensors_of(theirs))
    assert [what for what in ours if not isinstance(what, Tensor)] == [
        what for what in theirs if not isinstance(what, Tensor)
    ]


REPARAMETRIZATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "weight_norm": (utils.weight_norm, utils.remove_weight_norm),
    "weight_norm of all": (lambda m, name: utils.weight_norm(m, name, dim=None), utils.remove_weight_norm),
    "spectral_norm": (
        lambda m, name: utils.spectral_norm(m, name, n_power_iterations=2),
        utils.remove_spectral_norm,
    ),
    "parametrizations.weight_norm": (parametrizations.weight_norm, parametrize.remove_parametrizations),
    "parametrizations.spectral_norm": (parametrizations.spectral_norm, parametrize.remove_parametrizations),
    **{
        f"orthogonal {kind}": (
            lambda m, name, kind=kind: parametrizations.orthogonal(m, name, kind),
            parametrize.remove_parametrizations,
        )
        for kind in ("matrix_exp", "cayley", "householder")
    },
    "orthogonal without a trivialization": (
        lambda m, name: parametrizations.orthogonal(m, name, use_trivialization=False),
        parametrize.remove_parametrizations,
    ),
    "a parametrization of one's own": (
        lambda m, name: parametrize.register_parametrization(m, name, Doubled()),
        parametrize.remove_parametrizations,
    ),
    "removed with its original": (
        lambda m, name: parametrize.register_parametrization(m, name, Doubled()),
        lambda m, name: parametrize.remove_parametrizations(m, name, leave_parametrized=False),
    ),
    "prune.identity": (prune.identity, prune.remove),
    "prune.random_unstructured": (lambda m, name: prune.random_unstructured(m, name, 0.4), prune.remove),
    "prune.l1_unstructured": (lambda m, name: prune.l1_unstructured(m, name, 3), prune.remove),
    "prune.random_structured": (lambda m, name: prune.random_structured(m, name, 1, dim=0), prune.remove),
    "prune.ln_structured": (lambda m, name: prune.ln_structured(m, name, 0.5, n=2, dim=1), prune.remove),
    "prune.custom_from_mask": (
        lambda m, name: prune.custom_from_mask(m, name, getattr(m, name) > 0),
        prune.remove,
    ),
    "prune.global_unstructured": (
        lambda m, name: prune.global_unstructured([(m, name)], prune.L1Unstructured, amount=0.3),
        prune.remove,
    ),
    "pruned twice": (
        lambda m, name: (prune.l1_unstructured(m, name, 2), prune.random_unstructured(m, name, 2)),
        prune.remove,
    ),
    "a pruning of one's own": (lambda m, name: EverySecond.apply(m, name), prune.remove),
}


@pytest.mark.parametrize("kind", REPARAMETRIZATIONS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_made_of_others_live_and_go(layer: str, kind: str) -> None:
    prepare, remove = REPARAMETRIZATIONS[kind]

    def prepared(nn: Any) -> Module:
        module = built(nn, layer)
        prepare(module, LAYERS[layer][1])
        return module

    def way(nn: Any) -> Seen:
        plain, name, inputs = built(nn, layer), LAYERS[layer][1], arguments(layer)
        module, twin = prepared(nn), prepared(nn)
        seen = life(module, twin, *inputs)
        seen += [parametrize.is_parametrized(module), prune.is_pruned(module), type(module) is type(plain)]
        seen += [type(module).__name__, parametrize.type_before_parametrizations(module) is type(plain)]
        remove(module, name)
        return [*seen, *life(module, plain, *inputs), type(module) is type(plain)]

    assert_looks_alike(way)


def with_gradients(nn: Any) -> tuple[Module, list[Tensor]]:
    """A small network after a backward pass, and its gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)
    ).double()
    (input,) = random_tensors((4, 2, 5, 5))
    model(input).square().sum().backward()
    return model, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


GRADIENTS: dict[str, Callable[[Module, list[Tensor]], Seen]] = {
    "clip_grad_norm_": lambda model, grads: [utils.clip_grad_norm_(model.parameters(), 0.5, foreach=False)],
    "clip_grad_norm_ of the largest": lambda model, grads: [
        utils.clip_grad_norm_(model.parameters(), 0.5, norm_type=float("inf"))
    ],
    "clip_grad_norm": lambda model, grads: [utils.clip_grad_norm(model.parameters(), 0.5, 1.0)],
    "clip_grad_value_": lambda model, grads: [utils.clip_grad_value_(model.parameters(), 0.1)],
    "clip_grads_with_norm_": lambda model, grads: [
        utils.clip_grads_with_norm_(model.parameters(), 0.5, utils.get_total_norm(grads))
    ],
    "get_total_norm": lambda model, grads: [utils.get_total_norm(grads, 3.0)],
    "parameters_to_vector": lambda model, grads: [utils.parameters_to_vector(model.parameters())],
    "vector_to_parameters": lambda model, grads: [
        utils.vector_to_parameters(2 * utils.parameters_to_vector(model.parameters()), model.parameters())
    ],
}


@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.filterwarnings("ignore:.*clip_grad_norm. is now deprecated:FutureWarning")
def test_gradients_and_parameters_of_a_model(kind: str) -> None:
    def way(nn: Any) -> Seen:
        model, gradients = with_gradients(nn)
        return [*GRADIENTS[kind](model, gradients), *gradients, *model.parameters()]

    assert_looks_alike(way)


CONVOLUTIONS: dict[str, tuple[Callable[[Any], Module], Callable[[Any], Module], Sequence[int]]] = {
    "Conv1d": (lambda nn: nn.Conv1d(2, 4, 3, bias=False), lambda nn: nn.BatchNorm1d(4), (2, 2, 6)),
    "Conv2d": (lambda nn: nn.Conv2d(2, 4, 3, groups=2), lambda nn: nn.BatchNorm2d(4), (2, 2, 6, 6)),
    "Conv3d": (lambda nn: nn.Conv3d(2, 4, 2), lambda nn: nn.BatchNorm3d(4), (2, 2, 3, 3, 3)),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(2, 4, 3), lambda nn: nn.BatchNorm2d(4), (2, 2, 4, 4)),
    "Linear": (lambda nn: nn.Linear(3, 4), lambda nn: nn.BatchNorm1d(4), (5, 3)),
}


def with_statistics(nn: Any, kind: str) -> tuple[Module, Module, Tensor]:
    """A layer and the batch norm behind it in evaluation, with statistics and weights of their own, and an input."""
    torch.manual_seed(0)
    layer, norm = (make(nn).double() for make in CONVOLUTIONS[kind][:2])
    (input,) = random_tensors(CONVOLUTIONS[kind][2])
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    return layer.eval(), norm.eval(), input


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_batch_norm_fused_into_the_layer_before_it(kind: str) -> None:
    def way(nn: Any) -> Seen:
        layer, norm, input = with_statistics(nn, kind)
        apart = norm(layer(input))
        if kind == "Linear":
            fused: Module = utils.fuse_linear_bn_eval(layer, norm)
        else:
            fused = utils.fuse_conv_bn_eval(layer, norm, transpose="Transpose" in kind)
        torch.testing.assert_close(fused(input), apart)
        return [type(fused) is type(layer), *step(fused, input), *state(fused)]

    assert_looks_alike(way)


def test_fused_weights() -> None:
    assert fusion.fuse_conv_bn_weights is utils.fuse_conv_bn_weights

    def way(nn: Any) -> Seen:
        seen: Seen = []
        for kind, fuse in (("Conv2d", utils.fuse_conv_bn_weights), ("Linear", utils.fuse_linear_bn_weights)):
            layer, norm, _ = with_statistics(nn, kind)
            statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            seen += fuse(layer.weight, layer.bias, *statistics)
        return seen

    assert_looks_alike(way)


@pytest.mark.parametrize("layer", ["RNN", "LSTM", "GRU"])
def test_sequences_of_different_lengths(layer: str) -> None:
    def way(nn: Any) -> Seen:
        torch.manual_seed(0)
        module = getattr(nn, layer)(3, 4, num_layers=2, bidirectional=True).double()
        sequences = random_tensors((4, 3), (2, 3), (3, 3))
        lengths = torch.tensor([4, 2, 3])
        seen = list(rnn.unpad_sequence(rnn.pad_sequence(sequences), lengths))
        for packed in (
            rnn.pack_sequence(sequences, enforce_sorted=False),
            rnn.pack_padded_sequence(rnn.pad_sequence(sequences), lengths, enforce_sorted=False),
        ):
            assert isinstance(packed, rnn.PackedSequence)
            output, state = module(packed)
            seen += [*output, *tensors_of(state), *rnn.unpack_sequence(output)]
            filled, counts = rnn.pad_packed_sequence(output, padding_value=-1.0, total_length=6)
            sources = [*sequences, *module.parameters()]
            seen += [counts, rnn.invert_permutation(packed.sorted_indices), *pull_back([filled, state], sources)]
        return seen

    assert_looks_alike(way)


@pytest.mark.parametrize("call", [stateless.functional_call, torch.func.functional_call], ids=["stateless", "func"])
@pytest.mark.filterwarnings("ignore:.*stateless.functional_call.* is deprecated:FutureWarning")
@pytest.mark.parametrize("layer", LAYERS)
def test_called_with_other_weights(layer: str, call: Callable[..., Any]) -> None:
    def way(nn: Any) -> Seen:
        module, inputs = built(nn, layer), tuple(arguments(layer))
        weights = {name: (2 * p).detach().requires_grad_() for name, p in module.named_parameters()}
        seen = pull_back(call(module, weights, inputs), [*inputs, *weights.values()])
        return [*seen, *state(module)]

    assert_looks_alike(way)


WITH_DEVICE: dict[str, tuple[Any, ...]] = {
    "Linear": (3, 4),
    "Conv2d": (2, 3, 3),
    "Embedding": (5, 4),
    "BatchNorm1d": (3,),
    "LSTMCell": (3, 4),
    "MultiheadAttention": (4, 2),
    "TransformerEncoderLayer": (4, 2, 8),
    "TransformerDecoderLayer": (4, 2, 8),
    "Transformer": (4, 2, 1, 1, 8),
    "AdaptiveLogSoftmaxWithLoss": (16, 9, (3, 6)),
    "LSTM": (3, 4),  # which torch refuses: its constructor names no device
}


@pytest.mark.parametrize("layer", WITH_DEVICE)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_built_without_initialising(layer: str) -> None:
    def way(nn: Any) -> Seen:
        before = torch.random.get_rng_state()
        try:
            module = utils.skip_init(getattr(nn, layer), *WITH_DEVICE[layer], dtype=torch.float64)
        except RuntimeError as error:
            return [str(error)]
        assert torch.equal(before, torch.random.get_rng_state())
        described = [(name, tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()]
        return [type(module).__name__, isinstance(module, getattr(torch.nn, layer)), repr(module), described]

    assert_looks_alike(way)


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_in_another_memory_format(dims: int) -> None:
    convert, format = {
        2: (utils.convert_conv2d_weight_memory_format, torch.channels_last),
        3: (utils.convert_conv3d_weight_memory_format, torch.channels_last_3d),
    }[dims]

    def way(nn: Any) -> Seen:
        torch.manual_seed(0)
        layers = [getattr(nn, f"{name}{dims}d") for name in ("Conv", "ConvTranspose")]
        model = convert(nn.Sequential(*[layer(4, 4, 3) for layer in layers], nn.ReLU()).double(), format)
        (input,) = random_tensors((2, 4, *[4] * dims))
        seen = step(model, input.to(memory_format=format))
        return [*seen, *state(model), [parameter.stride() for parameter in model.parameters()]]

    assert_looks_alike(way)


@pytest.mark.parametrize("layer", LAYERS)
def test_cached_parametrizations_are_computed_once(layer: str) -> None:
    def way(nn: Any) -> Seen:
        module, name = built(nn, layer), LAYERS[layer][1]
        parametrize.register_parametrization(module, name, Doubled())
        counter = module.parametrizations[name]
        assert isinstance(counter, parametrize.ParametrizationList)
        with parametrize.cached():
            inputs = arguments(layer)
            module(*inputs)
            seen = step(module, *inputs)
            assert getattr(module, name) is getattr(module, name)
        return [*seen, counter[0].calls]

    assert_looks_alike(way)


def test_a_parametrization_moves_to_another_module() -> None:
    def way(nn: Any) -> Seen:
        source, target = built(nn, "Linear"), built(nn, "Linear")
        parametrize.register_parametrization(source, "weight", Doubled())
        parametrize.transfer_parametrizations_and_params(source, target)
        seen = [*tensors_of(target(*arguments("Linear"))), *state(target)]
        return [*seen, type(target).__name__, parametrize.is_parametrized(target, "weight")]

    assert_looks_alike(way)


@pytest.mark.parametrize(
    "method",
    [
        prune.RandomUnstructured(0.4),
        prune.L1Unstructured(0.5),
        prune.RandomStructured(1, dim=0),
        prune.LnStructured(2, n=1, dim=1),
        prune.CustomFromMask(torch.eye(5, 4)),
        prune.Identity(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_pruning_methods_are_collected(method: prune.BasePruningMethod) -> None:
    def way(nn: Any) -> Seen:
        module = built(nn, "Linear")
        prune.l1_unstructured(module, "weight", 3)
        torch.manual_seed(2)
        collected = prune.PruningContainer(*module._forward_pre_hooks.values())
        method._tensor_name = "weight"
        collected.add_pruning_method(method)
        mask = collected.compute_mask(module.weight_orig, module.weight_mask)
        return [mask, method.prune(module.weight_orig, mask), len(collected), *step(module, *arguments("Linear"))]

    assert_looks_alike(way)


def reads(case: ModuleCase, nn: Any) -> dict[str, int]:
    """How often each weight is computed in one call, of a module whose weights are all made of others."""
    module = build(case, nn)
    weights = [(part, name) for part in module.modules() for name, _ in part.named_parameters(recurse=False)]
    for part, name in weights:
        parametrize.register_parametrization(part, name, Doubled(), unsafe=True)
    for part in module.modules():
        if isinstance(part, Doubled):
            part.calls = 0
    run(case, module, inputs_of(case))
    return {name: part.calls for name, part in module.named_modules() if isinstance(part, Doubled)}


@pytest.mark.parametrize("case", [case for case in all_module_cases() if has_weights(case)], ids=lambda case: case.name)
def test_each_weight_is_read_no_more_often_than_torchs(case: ModuleCase) -> None:
    """Where reading it costs something, or changes it, as spectral norm's does."""
    ours, theirs = reads(case, OURS), reads(case, THEIRS)
    assert ours.keys() == theirs.keys()
    assert {name: count for name, count in ours.items() if count > max(theirs[name], 1)} == {}


# Parts of what is used above.
PARTS = {"SpectralNorm", "SpectralNormLoadStateDictPreHook", "SpectralNormStateDictHook", "WeightNorm"} | {
    *("PackedSequence_", "bind"),
}


def public_names() -> Iterator[str]:
    """Functions and classes of torch.nn.utils and its public files."""
    files = [name for _, name, _ in pkgutil.iter_modules(utils.__path__) if not name.startswith("_")]
    for home in (utils, *[importlib.import_module(f"{utils.__name__}.{name}") for name in files]):
        for name, value in vars(home).items():
            file = getattr(value, "__module__", "").removeprefix(f"{utils.__name__}.")
            is_callable = inspect.isfunction(value) or inspect.isclass(value)
            if file in files and is_callable and not name.startswith("_"):
                yield name


def test_every_name_is_used_above() -> None:
    """A name that a newer torch adds fails here."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(public_names()) - PARTS <= used
