"""`__torch_function__`: whoever answers for torch.nn.functional's functions is asked by ours, under their own names."""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
import timeit
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional
from torch import Tensor
from torch.overrides import TorchFunctionMode

import torchfromscratch
from tests import lacks
from tests.cases import EVERY_TEST, Case, ModuleCase, all_cases, all_module_cases
from tests.subjects import answers, assert_equal, pull_back, tensors_of
from torchfromscratch import functional as F
from torchfromscratch.functional.override import CAN_TRACE_MODES, overridable

THEIRS = torch.nn.functional

# Where torch hands over a function that is not public, or one of a public function's two.
SPELLED = {"_threshold": "threshold", "log_sigmoid": "logsigmoid", "max_pool2d_with_indices": "max_pool2d"}


class Recorder:
    """A namespace that notes the calls of another's functions."""

    def __init__(self, namespace: Any) -> None:
        self.namespace, self.calls = namespace, []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.namespace, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return function(*args, **kwargs)

        return call


class Duck:
    """No tensor, but it answers for all functions: with what it was asked for."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return func


class Listening(Tensor):
    """A subclass that notes which functions it is asked for."""

    heard: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        note(cls.heard, func)
        return super().__torch_function__(func, types, args, kwargs or {})


class ListeningMode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        note(self.heard, func)
        return func(*args, **(kwargs or {}))


def note(heard: list[str], func: Any) -> None:
    """The function's name, unless it reads an attribute."""
    name = func.__name__
    if name != "__get__":
        heard.append(SPELLED.get(name, name))


# the functions that overwrite their input, with their options
INPLACE: dict[str, tuple] = {
    "relu_": (),
    "leaky_relu_": (0.3,),
    "rrelu_": (0.1, 0.3, True),
    "hardtanh_": (-0.3, 0.4),
    "threshold_": (0.1, 3.0),
    "elu_": (0.7,),
    "selu_": (),
    "celu_": (0.7,),
}


def all_calls() -> list[tuple[str, tuple, dict]]:
    """Every call that the cases make, and those of functions that have none: name and arguments."""
    calls: list[tuple[str, tuple, dict]] = []
    for dims in (1, 2, 3):
        image = torch.ones(1, 1, *[4] * dims)
        calls += [(f"{kind}max_pool{dims}d_with_indices", (image, 2), {}) for kind in ("", "adaptive_")]
    calls += [(name, (torch.ones(2), *args), {}) for name, args in INPLACE.items()]
    calls += [(name, (torch.ones(1, 1, 2, 2), 3), {}) for name in ("upsample", "upsample_nearest", "upsample_bilinear")]
    calls += [("native_channel_shuffle", (torch.ones(1, 4, 2), 2), {}), ("one_hot", (torch.tensor([2, 0]),), {})]
    for case in all_cases():
        recorder = Recorder(F)
        case.call(recorder, *case.inputs())
        calls += recorder.calls
    return calls


def with_each_tensor_replaced(args: tuple, kwargs: dict, value: Any) -> Iterator[tuple[str | int, tuple, dict]]:
    """The arguments with `value` for one of the tensors, and where that was: a position or a name."""
    for position, arg in enumerate(args):
        for replaced in replacements(arg, value):
            yield position, (*args[:position], replaced, *args[position + 1 :]), kwargs
    for name, arg in kwargs.items():
        for replaced in replacements(arg, value):
            yield name, args, {**kwargs, name: replaced}


def replacements(arg: Any, value: Any) -> Iterator[Any]:
    if isinstance(arg, Tensor):
        yield value
    elif isinstance(arg, tuple):
        for position, element in enumerate(arg):
            if isinstance(element, Tensor):
                yield (*arg[:position], value, *arg[position + 1 :])


def public_functions() -> dict[str, Callable[..., Any]]:
    return {name: value for name, value in vars(F).items() if inspect.isfunction(value) and not name.startswith("_")}


@pytest.mark.parametrize("name", INPLACE)
def test_functions_that_overwrite_their_input(name: str) -> None:
    """All that torch.nn.functional has, with its options, and differentiable."""
    assert {other for other in vars(THEIRS) if other.endswith("_") and not other.startswith("_")} == INPLACE.keys()
    found = []
    for namespace in (F, THEIRS):
        torch.manual_seed(0)
        leaf = torch.linspace(-2, 2, 7, dtype=torch.float64).requires_grad_()
        x = leaf * 1
        assert getattr(namespace, name)(x, *INPLACE[name]) is x
        found.append(pull_back(x, [leaf]))
    assert_equal(*found, precision=torch.float32 if name == "celu_" else torch.float64)  # torch's constants


def test_the_calls_are_of_all_functions() -> None:
    assert {name for name, *_ in all_calls()} == public_functions().keys()


def test_every_tensor_may_answer_in_the_functions_place() -> None:
    """Also one that is no tensor, in every place that takes one."""
    for name, args, kwargs in all_calls():
        function = getattr(F, name)
        for where, *given in with_each_tensor_replaced(args, kwargs, Duck()):
            assert function(*given[0], **given[1]) is function, (name, where)


@pytest.mark.parametrize("value", [[1.0, 2.0], 3, "x"], ids=["list", "number", "string"])
def test_what_is_no_tensor_is_named(value: Any) -> None:
    for name, args, kwargs in all_calls():
        function = getattr(F, name)
        parameters = [*inspect.signature(function).parameters]
        for where, *given in with_each_tensor_replaced(args, kwargs, value):
            is_recurrent = parameters[0] == "args"  # and takes its arguments in two orders
            argument = r"\w+" if is_recurrent else where if isinstance(where, str) else parameters[where]
            kind = r"\w+" if is_recurrent else type(value).__name__
            with pytest.raises(TypeError, match=rf"^{name}\(\): argument '{argument}' must be Tensor, not {kind}$"):
                function(*given[0], **given[1])


def functional_case(test: Callable[..., Any]) -> Callable[..., Any]:
    cases = [pytest.param(case, marks=lacks.marked(case.leave_out.get(EVERY_TEST, ""))) for case in all_cases()]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)(test)


@functional_case
def test_subclasses_hear_what_torchs_functions_tell_them(case: Case) -> None:
    """And the answer is computed by hand, a tensor of the subclass, and differentiable."""
    heard = []
    for namespace in (THEIRS, F):
        inputs = [tensor.detach().as_subclass(Listening).requires_grad_() for tensor in case.inputs()]
        Listening.heard = []
        torch.manual_seed(0)
        output = case.call(namespace, *inputs)
        heard.append([*Listening.heard])
    assert heard[0] == heard[1]
    assert all(type(tensor) is Listening for tensor in tensors_of(output))
    assert_equal(pull_back(output, inputs), answers(functools.partial(case.call, F), case.inputs()))


@functional_case
def test_modes_hear_what_torchs_functions_tell_them(case: Case) -> None:
    heard = []
    for namespace in (F, THEIRS):
        with ListeningMode() as mode:
            case.call(namespace, *[tensor.detach() for tensor in case.inputs()])
        heard.append(mode.heard)
    assert heard[0] == heard[1]


@functional_case
def test_symbolic_trace(case: Case) -> None:
    """The graph holds our functions, and computes what they do, also after it was pickled."""
    names = ", ".join(f"x{number}" for number in range(len(case.shapes)))

    def trace(namespace: Any) -> torch.fx.GraphModule:
        call = eval(f"lambda {names}: call(F, {names})", {"call": case.call, "F": namespace})
        return torch.fx.symbolic_trace(call)

    try:
        trace(THEIRS)
    except (TypeError, NotImplementedError) as error:
        # of torch.tensor(..., device=x.device) before torch 2.9, of a function among the arguments
        pytest.skip(f"torch.fx cannot trace the case's own lines: {error}")
    traced = trace(F)
    targets = {node.target for node in traced.graph.nodes if node.op == "call_function"}
    assert targets & set(public_functions().values())
    inputs = [tensor.detach() for tensor in case.inputs()]
    torch.manual_seed(0)
    expected = tensors_of(case.call(F, *inputs))
    for graph in (traced, pickle.loads(pickle.dumps(traced))):
        torch.manual_seed(0)
        assert_equal(tensors_of(graph(*inputs)), expected)


@pytest.mark.parametrize("case", all_module_cases(), ids=lambda case: case.name)
def test_modules_are_leaves_of_a_graph(case: ModuleCase) -> None:
    """As torch.nn's are: neither traced nor asked for anything."""
    graphs = []
    for nn in (torchfromscratch.nn, torch.nn):
        model = torch.nn.Sequential(case.build(nn))
        graphs.append([(node.op, str(node.target)) for node in torch.fx.Tracer().trace(model).nodes])
    assert graphs[0] == graphs[1]


class OfTorch:
    """Knows torch's functions and no others, as PyTorch's documentation teaches it."""

    known: ClassVar[dict[Any, str]] = {
        torch.nn.functional.relu: "relu",
        torch.sigmoid: "sigmoid",
        torch.lstm_cell: "lstm_cell",
        torch.nn.functional.max_pool2d: "max_pool2d",
    }

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return cls.known.get(func, NotImplemented)


def test_who_knows_torchs_functions_alone_is_asked_for_them() -> None:
    given = OfTorch()
    assert (F.relu(given), torchfromscratch.nn.Sigmoid()(given), F.max_pool2d(given, 2)) == (
        "relu",
        "sigmoid",
        "max_pool2d",
    )
    assert F.lstm_cell(given, (given, given), given, given) == "lstm_cell"
    with pytest.raises(TypeError, match=r"no implementation found for 'torchfromscratch.functional.gelu'.*OfTorch"):
        F.gelu(given)
    with torchfromscratch.from_scratch():
        assert torch.nn.functional.relu(given) == "relu"


def test_errors_of_an_answer_are_its_own() -> None:
    class Raising:
        @classmethod
        def __torch_function__(cls, *_: Any) -> Any:
            raise TypeError("its own")

    with pytest.raises(TypeError, match="its own"):
        F.relu(Raising())


def test_from_scratch_hands_our_functions_over() -> None:
    with torchfromscratch.from_scratch():
        assert THEIRS.relu(Duck()) is F.relu
        assert torch.softmax(Duck(), 1) is F.softmax
        graph = torch.fx.symbolic_trace(lambda x: THEIRS.relu(x).exp()).graph
    assert [node.target for node in graph.nodes][1] is F.relu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(3, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize("variant", ["causal_upper_left", "causal_lower_right"])
@pytest.mark.filterwarnings("ignore:Lower right causal bias")
def test_causal_biases(variant: str, sizes: tuple[int, int], dtype: torch.dtype) -> None:
    """Masks without numbers: what they mean is in their `__torch_function__`."""
    from torch.nn.attention import bias

    mask = getattr(bias, variant)(*sizes)
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, sizes[0], 8), (2, 3, sizes[1], 8), (2, 3, sizes[1], 6))
    tensors = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]

    def attend(namespace: Any) -> list[Tensor]:
        output = namespace.scaled_dot_product_attention(*tensors, attn_mask=mask)
        assert type(output) is Tensor
        return pull_back(output, tensors)

    expected = attend(THEIRS)
    with torchfromscratch.audit():
        assert_equal(attend(F), expected)
        with torchfromscratch.from_scratch():
            assert_equal(attend(THEIRS), expected)


def test_causal_biases_where_they_cannot_be() -> None:
    from torch.nn.attention import bias

    x, mask = torch.ones(2, 4, 4), bias.causal_upper_left(4, 4)
    for namespace in (F, THEIRS):
        with pytest.raises(ValueError, match="CausalBias should not be used with"):
            namespace.scaled_dot_product_attention(x, x, x, mask, is_causal=True)
    with pytest.raises(TypeError, match="CausalBias"):  # torch's reads memory that nobody wrote
        torchfromscratch.nn.MultiheadAttention(4, 2)(x, x, x, attn_mask=mask)


def doubled_relu(func: Any, output: Any) -> Any:
    return output * 2 if func is F.relu else output


class Doubling(Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return doubled_relu(func, super().__torch_function__(func, types, args, kwargs or {}))


class DoublingMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return doubled_relu(func, func(*args, **(kwargs or {})))


@pytest.mark.skipif(not CAN_TRACE_MODES, reason="this version's Dynamo traces neither, or torch's functions alone")
@pytest.mark.parametrize("asked", ["subclass", "mode"])
def test_compiled_functions_ask(asked: str) -> None:
    def step(x: Tensor) -> Tensor:
        return F.softmax(F.relu(x), 1)

    x = torch.arange(-3.0, 3.0).view(2, 3)
    x = x.as_subclass(Doubling) if asked == "subclass" else x
    reason = lacks.handing_over_in_traced_code
    with lacks.left_out_for(reason), DoublingMode() if asked == "mode" else contextlib.nullcontext():
        compiled = torch.compile(step, backend="eager", fullgraph=True)(x)
        torch.testing.assert_close(compiled.as_subclass(Tensor), step(x).as_subclass(Tensor))
    torch.testing.assert_close(compiled.as_subclass(Tensor), (2 * x.as_subclass(Tensor).clamp(min=0)).softmax(1))


def test_functions_keep_their_names_and_signatures() -> None:
    for name, function in public_functions().items():
        assert function.__name__ == name
        assert pickle.loads(pickle.dumps(function)) is function
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)


WARNINGS: dict[str, Callable[[Any], Any]] = {
    "softmax": lambda F: F.softmax(torch.ones(2, 3)),
    "softmin": lambda F: F.softmin(torch.ones(2, 3)),
    "log_softmax": lambda F: F.log_softmax(torch.ones(2, 3)),
    "dropout2d": lambda F: F.dropout2d(torch.ones(2, 3)),
    "dropout3d": lambda F: F.dropout3d(torch.ones(2, 3)),
    "kl_div": lambda F: F.kl_div(torch.ones(2, 3), torch.ones(2, 3)),
    "mse_loss": lambda F: F.mse_loss(torch.ones(2, 3), torch.ones(1, 3)),
    "l1_loss": lambda F: F.l1_loss(torch.ones(2, 3), torch.ones(1, 3)),
    "smooth_l1_loss": lambda F: F.smooth_l1_loss(torch.ones(2, 3), torch.ones(1, 3)),
    "huber_loss": lambda F: F.huber_loss(torch.ones(2, 3), torch.ones(1, 3)),
    "gumbel_softmax": lambda F: F.gumbel_softmax(torch.ones(2, 3), eps=1e-3),
    "upsample": lambda F: F.upsample(torch.ones(1, 1, 2), 3),
    "upsample_nearest": lambda F: F.upsample_nearest(torch.ones(1, 1, 2), 3),
    "upsample_bilinear": lambda F: F.upsample_bilinear(torch.ones(1, 1, 2, 2), 3),
}


@pytest.mark.parametrize("call", WARNINGS.values(), ids=WARNINGS)
def test_warnings_point_at_the_caller(call: Callable[[Any], Any]) -> None:
    files = []
    for namespace in (F, THEIRS):
        with pytest.warns(UserWarning, match="dim|batchmean|broadcast|deprecated") as caught:
            call(namespace)
        files.append([warning.filename for warning in caught])
    assert files[0] == [__file__]
    if files[1] == [THEIRS.__file__]:
        pytest.skip("torch's own warning points at torch")
    assert files[1] == files[0]


def test_asking_takes_less_than_two_microseconds() -> None:
    """With as many arguments as a convolution has; the fastest of many turns, as others use the machine too."""

    def answer(input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int) -> Tensor:
        return input

    given = (torch.ones(1), torch.ones(1), None, 1, 0, 1)
    fastest = [
        min(timeit.repeat(functools.partial(function, *given), number=1000, repeat=50)) / 1000
        for function in (overridable(answer, __name__), answer)
    ]
    assert fastest[0] - fastest[1] < 2e-6
