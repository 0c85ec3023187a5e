"""convert() gives torch.nn's layers our classes, and touches nothing else."""

import copy
import functools
import pickle
import sys
import warnings
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from tests import lacks
from tests.cases import all_module_cases
from torchfromscratch import audit, conversion_report, convert, nn

X = torch.linspace(-2, 2, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Calling(torch.nn.Module):
    """Calls torch itself, beside its layers."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3)

    def forward(self, input):
        return torch.sigmoid(F.relu(self.conv(input)) - self.conv(input).relu_())


class Derived(torch.nn.Conv2d):
    """A subclass that computes nothing itself."""

    def __init__(self, channels):
        super().__init__(channels, channels, 3)

    def count(self):
        return self.weight.numel()


class Built(torch.nn.TransformerEncoderLayer):
    """A subclass with a constructor of its own."""

    def __init__(self, size):
        super().__init__(size, 2, 8, dropout=0)


class Overriding(torch.nn.Conv2d):
    def forward(self, input):
        return super().forward(input) + 1


class OverridingAHelper(torch.nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight * 2, bias)


def small():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))


def run(model, input=X):
    """Output and gradients of one training step."""
    input = input.clone().requires_grad_()
    output = model(input)
    model.zero_grad()
    output.square().sum().backward()
    return [output, input.grad, *(parameter.grad for parameter in model.parameters())]


def assert_runs_by_hand_and_alike(model, input=X):
    model.double()
    input = input.double()
    expected = run(model, input)
    convert(model)
    with audit():
        output = run(model, input)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("case", all_module_cases(), ids=lambda case: case.name)
def test_each_layer_becomes_ours_and_back(case):
    with torch.random.fork_rng():
        model = case.build(torch.nn)
    modules = dict(model.named_modules())
    classes = {name: type(module) for name, module in modules.items()}
    attributes = {name: dict(vars(module)) for name, module in modules.items()}
    assert convert(model) is model
    layers = {name for name in modules if classes[name].__module__ != "torch.nn.modules.container"}
    assert conversion_report(model).by_hand.keys() == layers
    assert all(
        any(base.__module__.startswith("torchfromscratch.nn") for base in type(modules[name]).__mro__)
        for name in layers
    )
    for name, module in model.named_modules():
        assert module is modules[name]
        assert type(module).__name__ == classes[name].__name__
        assert vars(module).keys() == attributes[name].keys()
        assert all(vars(module)[key] is value for key, value in attributes[name].items())
    convert(model, to="torch")
    assert {name: type(module) for name, module in model.named_modules()} == classes


@pytest.mark.parametrize("build", [small, Calling, lambda: Derived(3)], ids=["layers", "functions", "subclass"])
def test_a_converted_model_computes_the_same_by_hand(build):
    assert_runs_by_hand_and_alike(build())


def test_everything_stays_the_same_object():
    model = small().double().eval()
    model[0].register_forward_hook(lambda *_: None)
    model[0].note = object()
    model[0].weight.requires_grad_(False)
    before = [dict(vars(module)) for module in model.modules()]
    modules = list(model.modules())
    convert(model)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    for module, attributes in zip(modules, before, strict=True):
        assert vars(module).keys() == attributes.keys()
        assert all(vars(module)[name] is attributes[name] for name in attributes)
        assert not module.training


def test_an_optimizer_goes_on():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert(model)
    before = model[0].weight.clone()
    run(model)
    optimizer.step()
    assert not torch.equal(model[0].weight, before)


def test_the_root_itself_is_converted():
    model = torch.nn.Linear(8, 2)
    assert convert(model) is model
    assert type(model) is nn.Linear


def test_shared_modules_stay_shared():
    relu = torch.nn.ReLU()
    model = convert(torch.nn.Sequential(relu, torch.nn.Linear(8, 8), relu))
    assert model[0] is relu
    assert model[2] is relu
    assert type(relu) is nn.ReLU


def test_weights_load_in_both_directions():
    torch_model, converted = small(), convert(small())
    assert converted.state_dict().keys() == torch_model.state_dict().keys()
    converted.load_state_dict(torch_model.state_dict())
    torch.testing.assert_close(converted(X), torch_model(X))
    torch_model.load_state_dict(converted.state_dict())


def test_converting_twice_changes_nothing():
    model = convert(torch.nn.Sequential(Calling(), Derived(3), small()))
    classes = [type(module) for module in model.modules()]
    convert(model)
    assert [type(module) for module in model.modules()] == classes


def test_going_back_restores_every_class():
    model = torch.nn.Sequential(Calling(), Derived(3), small(), torch.nn.TransformerEncoderLayer(4, 2))
    classes = [type(module) for module in model.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers that we may not have
        convert(model)
    convert(model, to="torch")
    assert [type(module) for module in model.modules()] == classes


def test_a_subclass_that_computes_nothing_itself_stays_what_it_is():
    module = convert(Derived(3))
    assert isinstance(module, Derived)
    assert isinstance(module, nn.Conv2d)
    assert module.count() == 81
    assert type(module).__name__ == "Derived"


def test_a_constructor_is_nothing_that_overrides():
    model = torch.nn.Sequential(Built(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_runs_by_hand_and_alike(model, X[:, 0, :, :4])
    assert isinstance(model[0], nn.TransformerEncoderLayer)


@pytest.mark.parametrize("cls", [Overriding, OverridingAHelper])
def test_a_subclass_that_overrides_is_left_and_reported(cls):
    model = torch.nn.Sequential(cls(3, 3, 3))
    expected = model(X)
    with pytest.warns(UserWarning, match=f"0: {cls.__name__} overrides"):
        convert(model)
    assert type(model[0]) is cls
    assert model[0].forward.__func__ is cls.forward
    assert "overrides" in conversion_report(model).left["0"]
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)


def test_a_subclass_that_overrides_runs_by_hand_inside_a_forward_that_does():
    class Model(Calling):
        def __init__(self):
            super().__init__()
            self.conv = Overriding(3, 3, 3)

    model = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_runs_by_hand_and_alike(model)
    assert "conv" in conversion_report(model).left
    assert not conversion_report(model).uncovered


def test_a_layer_is_not_inside_a_module_whose_name_begins_alike():
    model = torch.nn.ModuleDict({"block": Calling(), "block2": Overriding(3, 3, 3)})
    with pytest.warns(UserWarning, match="block2: Overriding overrides"):
        convert(model)
    assert conversion_report(model).uncovered.keys() == {"block2"}


class StaticForward(torch.nn.Module):
    @staticmethod
    def forward(input):
        return F.relu(input)


class ClassForward(torch.nn.Module):
    @classmethod
    def forward(cls, input):
        return F.relu(input)


class PartialForward(torch.nn.Module):
    def scaled(self, input, scale):
        return F.relu(input) * scale

    forward = functools.partialmethod(scaled, scale=2)


class ObjectForward(torch.nn.Module):
    class Forward:
        def __call__(self, input):
            return F.relu(input)

    forward = Forward()


class Registering(torch.nn.Module):
    names: ClassVar = []

    def __init_subclass__(cls, *, name):
        super().__init_subclass__()
        cls.names.append(name)


class Registered(Registering, name="only"):
    def forward(self, input):
        return F.relu(input)


@pytest.mark.parametrize(
    "cls", [StaticForward, ClassForward, PartialForward, ObjectForward, Registered], ids=lambda cls: cls.__name__
)
def test_every_kind_of_forward_runs_by_hand(cls):
    assert_runs_by_hand_and_alike(cls())
    assert Registering.names == ["only"]


@pytest.mark.parametrize("build", [torch.nn.ReLU, Calling])
def test_a_forward_set_on_the_module_is_left(build):
    module = build()
    module.forward = lambda input: input
    with pytest.warns(UserWarning, match=f"{build.__name__} has its forward set on the module itself"):
        convert(module)
    assert module(X) is X


def test_a_model_without_layers_passes_silently():
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(0, 0), torch.nn.ModuleList())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert(model) is model
    assert not conversion_report(model).left
    assert "0 layers left" in str(conversion_report(model))


def test_scripted_modules_are_left_and_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(small())
    model = torch.nn.Sequential(scripted, torch.nn.ReLU())
    with pytest.warns(UserWarning, match="0: RecursiveScriptModule is TorchScript"):
        convert(model)
    assert conversion_report(model).left.keys() == {"0"}
    assert type(model[1]) is nn.ReLU
    model(X)


def test_a_layer_that_we_do_not_have_is_reported(monkeypatch):
    """As one that a newer torch adds."""
    monkeypatch.delitem(sys.modules[convert.__module__]._BY_HAND, torch.nn.LPPool2d)
    model = torch.nn.Sequential(torch.nn.LPPool2d(2, 2))
    expected = model(X)
    with pytest.warns(UserWarning, match="0: LPPool2d has no counterpart"):
        convert(model)
    assert conversion_report(model).left.keys() == {"0"}
    torch.testing.assert_close(model(X), expected)


def test_quantized_layers_are_left_and_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that quantization moves to torchao
        model = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()))
        expected = model(X)
        with pytest.warns(UserWarning, match="0: Linear has no counterpart"):
            convert(model)
    assert conversion_report(model).left.keys() == {"0"}
    assert type(model[1]) is nn.ReLU
    torch.testing.assert_close(model(X), expected)


def test_layers_that_may_be_given_integers_are_left_and_reported():
    stubs = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
    model = torch.nn.Sequential(stubs[0], torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2), stubs[1]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that quantization moves to torchao
        model.qconfig = torch.ao.quantization.get_default_qconfig()
        prepared = torch.ao.quantization.prepare(model)
        prepared(X)
        quantized = torch.ao.quantization.convert(prepared)
        expected = quantized(X)
        with pytest.warns(UserWarning, match="2: MaxPool2d may be given integers"):
            convert(quantized)
        torch.testing.assert_close(quantized(X), expected, rtol=0, atol=0)
    assert conversion_report(quantized).left.keys() == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("wrong", "error"), [(({"to": "tensorflow"}), ValueError), (({"model": [1]}), TypeError)], ids=["to", "model"]
)
def test_wrong_arguments_say_so(wrong, error):
    with pytest.raises(error, match="convert needs"):
        convert(**{"model": small(), **wrong})


def test_lazy_layers_become_ours_when_they_know_their_size():
    model = convert(torch.nn.Sequential(torch.nn.LazyConv2d(4, 3), torch.nn.ReLU()))
    with audit():
        model(X)
    assert type(model[0]) is nn.Conv2d
    back = convert(convert(torch.nn.LazyConv2d(4, 3)), to="torch")
    assert type(back) is torch.nn.LazyConv2d


class Frozen(Calling):
    """Lets nobody set its attributes once it is built."""

    def __init__(self):
        super().__init__()
        self.is_built = True

    def __setattr__(self, name, value):
        if "is_built" in vars(self):
            raise AttributeError(f"{name} cannot be set")
        super().__setattr__(name, value)


def test_a_model_that_forbids_attributes_to_be_set_is_converted():
    assert_runs_by_hand_and_alike(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), Frozen()))


class Register(type):
    """Keeps every model by its name, and refuses a second one."""

    models: ClassVar[dict] = {}

    def __new__(cls, name, bases, namespace, *, key):
        return super().__new__(cls, name, bases, namespace)

    def __init__(cls, name, bases, namespace, *, key):
        super().__init__(name, bases, namespace)
        assert key not in cls.models
        cls.models[key] = cls


class InRegister(Calling, metaclass=Register, key="calling"):
    pass


def test_a_register_of_models_keeps_the_users_class():
    assert_runs_by_hand_and_alike(InRegister())
    assert Register.models == {"calling": InRegister}


def test_a_model_of_several_processes_runs_by_hand():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert_runs_by_hand_and_alike(torch.nn.parallel.DistributedDataParallel(small()))
        assert_runs_by_hand_and_alike(torch.nn.parallel.DistributedDataParallel(convert(small())))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "wrap",
    [
        torch.nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.compile(model, backend="aot_eager"),
    ],
    ids=["DataParallel", "AveragedModel", "compile"],
)
@pytest.mark.filterwarnings("error:convert left built-in layers")
def test_a_wrapped_model_runs_by_hand(wrap):
    assert_runs_by_hand_and_alike(wrap(small()))


@pytest.mark.parametrize(
    "reparametrize",
    [
        lambda conv: torch.nn.utils.weight_norm(conv),
        lambda conv: torch.nn.utils.spectral_norm(conv).eval(),
        lambda conv: parametrizations.weight_norm(conv),
        lambda conv: parametrizations.orthogonal(conv),
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    ],
    ids=["weight_norm hook", "spectral_norm hook", "weight_norm", "orthogonal", "prune"],
)
def test_reparametrized_weights_keep_working(reparametrize):
    model = torch.nn.Sequential(reparametrize(torch.nn.Conv2d(3, 4, 3)))
    assert_runs_by_hand_and_alike(model)
    assert isinstance(model[0], nn.Conv2d)


def test_a_parametrization_can_be_removed_after_converting():
    model = torch.nn.Sequential(parametrizations.weight_norm(torch.nn.Conv2d(3, 4, 3)))
    twin = copy.deepcopy(model)
    convert(model)
    assert isinstance(copy.deepcopy(model)[0], nn.Conv2d)
    assert not isinstance(twin[0], nn.Conv2d)
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is nn.Conv2d
    torch.testing.assert_close(model(X), twin(X))


def test_a_parametrization_goes_back_to_torch():
    model = parametrizations.weight_norm(torch.nn.Conv2d(3, 4, 3))
    convert(convert(model), to="torch")
    assert not isinstance(model, nn.Conv2d)
    parametrize.remove_parametrizations(model, "weight")
    assert type(model) is torch.nn.Conv2d


def test_a_layer_parametrized_after_converting_goes_back_too():
    model = parametrizations.weight_norm(convert(torch.nn.Conv2d(3, 4, 3)))
    convert(model, to="torch")
    parametrize.remove_parametrizations(model, "weight")
    assert type(model) is torch.nn.Conv2d


class Reduced(Calling):
    """Says itself how it is pickled."""

    def __reduce__(self):
        return type(self), (), vars(self)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize(
    "build",
    [lambda: torch.nn.Sequential(Calling(), Derived(3)), Reduced, lambda: torch.fx.symbolic_trace(Calling())],
    ids=["modules", "reduce", "graph"],
)
def test_converted_models_can_be_copied_and_pickled(build, copied):
    model = convert(build())
    twin = copied(model)
    assert conversion_report(twin).by_hand == conversion_report(model).by_hand
    with audit():
        torch.testing.assert_close(twin(X), model(X))


def test_converted_models_compile_in_one_graph():
    model = convert(torch.nn.Sequential(Calling(), Derived(3)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with lacks.left_out_for(lacks.context_managers_in_traced_code):
        torch.testing.assert_close(run(compiled), run(model))


def test_converted_models_are_exported():
    model = convert(torch.nn.Sequential(Calling(), Derived(3)))
    program = torch.export.export(model, (X,), strict=False)
    torch.testing.assert_close(program.module()(X), model(X))


def test_a_traced_graph_runs_by_hand():
    model = torch.fx.symbolic_trace(Calling())
    assert_runs_by_hand_and_alike(model)
    model.recompile()
    with audit():
        model(X.double())


@pytest.mark.parametrize("size", [8, 1])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_a_layer_returns_can_be_overwritten(size, memory_format):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(inplace=True)).to(memory_format=memory_format)
    assert_runs_by_hand_and_alike(model, X[:, :, :size, :size].contiguous(memory_format=memory_format))
