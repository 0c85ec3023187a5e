"""Cases of each layer, as strategies of hypothesis: what it shrinks to is the simplest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from random import Random
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, configuration, find, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from torch import Tensor

from torchfromscratch.checking.case import LAYOUTS, STYLES, Case, Numbers
from torchfromscratch.checking.formulas import as_tuple
from torchfromscratch.checking.layers import Layer

PARTS = 5  # cases of one run of hypothesis resemble each other: several runs know more
BATCHES = (1, 2, 3, 0)
CHANNELS_INNERMOST = ("contiguous", "rows", "rows", "rows", *LAYOUTS[1:])  # where norms have been wrong
COTANGENT_LAYOUTS = ("contiguous", "contiguous", *LAYOUTS[1:], "rows")


class Draws:
    """Arguments as they are drawn: those that the function does not take keep their defaults."""

    def __init__(
        self, draw: Any, layer: Layer, takes: tuple[str, ...], fixed: Mapping[str, Any], needs: tuple[str, ...]
    ) -> None:
        self.draw, self.layer, self.takes, self.fixed, self.needs = draw, layer, takes, fixed, needs
        self.arguments: dict[str, Any] = {}
        self.layouts: tuple[str, ...] = COTANGENT_LAYOUTS  # of dL/dy

    def option(self, name: str, values: st.SearchStrategy) -> Any:
        """One option: as the caller fixed it, or drawn if the function takes it, or the default."""
        if name in self.fixed:
            value = self.fixed[name]
        elif name in self.takes:
            value = self.draw(values)
        else:
            value = self.layer.defaults[name]
        self.arguments[name] = value
        return value

    def size(self, name: str, values: st.SearchStrategy) -> int:
        """A number that shapes tensors, unless the caller fixed it."""
        return self.fixed[name] if name in self.fixed else self.draw(values)

    def tensor(self, name: str, *shape: int, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """A tensor argument, in any arrangement."""
        numbers = self.numbers()
        tensor = numbers.tensor(*shape)
        self.arguments[name] = tensor if change is None else change(tensor)
        return self.arguments[name]

    def maybe(self, name: str, *shape: int) -> None:
        """A tensor argument that may be None."""
        self.maybe_change(name, shape, None)

    def maybe_positive(self, name: str, *shape: int) -> None:
        """A tensor of positive numbers that may be None."""
        self.maybe_change(name, shape, lambda x: x.abs() + 0.5)

    def maybe_change(self, name: str, shape: tuple[int, ...], change: Callable[[Tensor], Tensor] | None) -> None:
        """A tensor argument that the function takes, None in one of four cases."""
        may_be_none = st.booleans() if change else st.sampled_from((True, True, True, False))
        if name in self.needs or (name in self.takes and self.draw(may_be_none)):
            self.tensor(name, *shape, change=change)
        else:
            self.arguments[name] = None

    def numbers(self, layouts: tuple[str, ...] = LAYOUTS[:5]) -> Numbers:
        """A recipe for a tensor."""
        style = self.draw(st.sampled_from(STYLES))
        return Numbers(style, self.draw(st.integers(0, 999)), self.draw(st.sampled_from(layouts)))

    def case(self) -> Case:
        """What was drawn."""
        cotangent = self.numbers(self.layouts)
        arguments = {name: self.arguments[name] for name in self.layer.arguments if name in self.arguments}
        return Case(arguments, cotangent, self.layer.constants)


def per_dim(dims: int, low: int, high: int) -> st.SearchStrategy:
    """One number for all dimensions, or one for each."""
    number = st.integers(low, high)
    return number if dims == 1 else number | st.tuples(*[number] * dims)


def conv(draws: Draws) -> None:
    """Odd sizes, unequal channels, kernels of several shapes and every option."""
    dims = int(draws.layer.name[-2])
    groups = draws.option("groups", st.sampled_from((1, 1, 2)))
    _, padding, dilation = (
        as_tuple(draws.option(name, per_dim(dims, low, high)), dims)
        for name, low, high in (("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 2))
    )
    kernel = as_tuple(draws.size("kernel_size", st.tuples(*[st.integers(1, 3 if dims < 3 else 2)] * dims)), dims)
    size = []
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        least = max(1, d * (k - 1) + 1 - 2 * p)
        size.append(least + draws.draw(st.integers(0, 4 if dims < 3 else 2)))
    in_channels = draws.size("in_channels", st.integers(1, 3).map(lambda c: c * groups))
    out_channels = draws.size("out_channels", st.integers(1, 3).map(lambda c: c * groups))
    draws.tensor("input", draws.draw(st.sampled_from(BATCHES)), in_channels, *size)
    draws.tensor("weight", out_channels, in_channels // groups, *kernel)
    draws.maybe("bias", out_channels)


def conv_transpose(draws: Draws) -> None:
    """As convolution, with sizes for which something is left of the output."""
    dims = int(draws.layer.name[-2])
    groups = draws.option("groups", st.sampled_from((1, 1, 2)))
    stride = as_tuple(draws.option("stride", per_dim(dims, 1, 3)), dims)
    padding = as_tuple(draws.option("padding", per_dim(dims, 0, 2)), dims)
    dilation = as_tuple(draws.option("dilation", per_dim(dims, 1, 2)), dims)
    least = min(max(s, d) for s, d in zip(stride, dilation, strict=True)) - 1
    draws.option("output_padding", st.integers(0, least))
    kernel = as_tuple(draws.size("kernel_size", st.tuples(*[st.integers(1, 3 if dims < 3 else 2)] * dims)), dims)
    size = []
    for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True):
        least = max(1, 1 - (d * (k - 1) - 2 * p) // s)
        size.append(least + draws.draw(st.integers(0, 3 if dims < 3 else 1)))
    in_channels = draws.size("in_channels", st.integers(1, 3).map(lambda c: c * groups))
    out_channels = draws.size("out_channels", st.integers(1, 3).map(lambda c: c * groups))
    draws.tensor("input", draws.draw(st.sampled_from(BATCHES)), in_channels, *size)
    draws.tensor("weight", in_channels, out_channels // groups, *kernel)
    draws.maybe("bias", out_channels)


def pool(draws: Draws) -> None:
    """Overlapping windows, windows with gaps between them, padding up to half a window, ties."""
    dims = int(draws.layer.name[-2])
    kernel_size = draws.option("kernel_size", per_dim(dims, 1, 3))
    kernel = as_tuple(kernel_size, dims)
    draws.option("stride", per_dim(dims, 1, 3) | st.none())
    halves = st.tuples(*[st.integers(0, k // 2) for k in kernel])
    padding = as_tuple(draws.option("padding", st.integers(0, min(kernel) // 2) | halves), dims)
    dilation = (1,) * dims
    if "dilation" in draws.layer.arguments:
        dilation = as_tuple(draws.option("dilation", st.integers(1, 2)), dims)
    draws.option("ceil_mode", st.booleans())
    if "count_include_pad" in draws.layer.arguments:
        draws.option("count_include_pad", st.sampled_from((True, False)))
    if "divisor_override" in draws.layer.arguments:
        draws.option("divisor_override", st.none() | st.integers(1, 5))
    # at least as long as the dilation: no window lies in the padding alone
    size = [
        max(d, d * (k - 1) + 1 - 2 * p) + draws.draw(st.integers(0, 4 if dims < 3 else 2))
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    draws.tensor("input", draws.draw(st.sampled_from(BATCHES)), draws.draw(st.integers(1, 3)), *size)


def adaptive(draws: Draws) -> None:
    """Sizes that the output's divide, and others."""
    dims = int(draws.layer.name[-2])
    draws.option("output_size", per_dim(dims, 1, 4))
    size = [draws.draw(st.integers(1, 6 if dims < 3 else 4)) for _ in range(dims)]
    draws.tensor("input", draws.draw(st.sampled_from(BATCHES)), draws.draw(st.integers(1, 3)), *size)


def linear(draws: Draws) -> None:
    """Inputs of one, two and three dimensions."""
    features = draws.size("in_features", st.integers(1, 4))
    out_features = draws.size("out_features", st.integers(1, 4))
    draws.tensor("input", *draws.draw(LEADING), features)
    draws.tensor("weight", out_features, features)
    draws.maybe("bias", out_features)


def elementwise(draws: Draws) -> None:
    """Any shape."""
    draws.tensor("input", *draws.draw(SHAPES))
    if "negative_slope" in draws.layer.arguments:
        draws.option("negative_slope", st.sampled_from((0.5, 0.01, 0.0, 2.0)))


def softmax(draws: Draws) -> None:
    """Any dimension, counted from either end."""
    dim = draws.fixed.get("dim") or 0
    shape = draws.draw(SHAPES.filter(lambda shape: -len(shape) <= dim < len(shape)))
    if "dim" in draws.takes or "dim" in draws.fixed:
        dims = len(shape)
        draws.option("dim", st.integers(-1, dims - 1).map(lambda dim: -dim if dim == 1 and dims == 1 else dim))
    else:
        draws.arguments["dim"] = -1
    draws.tensor("input", *shape)


def _classes(draws: Draws, batches: tuple[int, ...]) -> None:
    """Scores of classes, of samples or of every position of samples, and the right ones."""
    batch, classes = draws.draw(st.sampled_from(batches)), draws.draw(st.integers(2, 4))
    positions = draws.draw(st.sampled_from(((), (), (2,), (2, 3))))
    draws.tensor("input", batch, classes, *positions)
    generator = torch.Generator().manual_seed(draws.draw(st.integers(0, 99)))
    target = torch.randint(classes, (batch, *positions), generator=generator)
    ignored = draws.option("ignore_index", st.sampled_from((-100, -100, 0)))
    if ignored == 0 and not target.all() and not target.any():
        target = torch.ones_like(target)  # a mean of nothing has no number
    draws.arguments["target"] = target
    draws.maybe_positive("weight", classes)


def _reduction(draws: Draws) -> tuple[int, ...]:
    """How losses become one number, and the batches of which there is one."""
    reduction = draws.option("reduction", st.sampled_from(("mean", "sum", "none")))
    for name in ("size_average", "reduce"):
        draws.arguments[name] = None
    return BATCHES[:3] if reduction == "mean" else BATCHES


def cross_entropy(draws: Draws) -> None:
    """Every reduction, with and without weights, smoothing and a class that does not count."""
    batches = _reduction(draws)
    if "label_smoothing" in draws.layer.arguments:
        draws.option("label_smoothing", st.sampled_from((0.0, 0.0, 0.25)))
    _classes(draws, batches)


def elementwise_loss(draws: Draws) -> None:
    """Predictions and targets of the same shape; probabilities where the loss is one of them."""
    batches = _reduction(draws)
    shape = (draws.draw(st.sampled_from(batches)), *draws.draw(st.sampled_from(((1,), (), (3,), (2, 3)))))
    if draws.layer.name == "binary_cross_entropy":
        draws.tensor("input", *shape, change=lambda x: 0.1 + 0.16 * (x % 5))
    else:
        draws.tensor("input", *shape)
    draws.tensor("target", *shape, change=None if draws.layer.name == "mse_loss" else lambda x: (x > 1).double())
    draws.maybe_positive("weight", *shape)
    if "pos_weight" in draws.layer.arguments:
        draws.maybe_positive("pos_weight", *shape[1:])


def batch_norm(draws: Draws) -> None:
    """Training and evaluation, with and without weights; more than one number for each channel."""
    draws.layouts = CHANNELS_INNERMOST
    channels = draws.size("num_features", st.integers(1, 3))
    positions = draws.draw(st.sampled_from(((), (2, 2), (3,), (3, 2), (1, 2, 2))))
    batch = draws.draw(st.sampled_from((2, 3, 4) if not positions else (1, 2, 1, 3)))
    draws.tensor("input", batch, channels, *positions)
    takes_statistics = "running_mean" in draws.takes
    training = draws.option("training", st.sampled_from((True, False))) if takes_statistics else True
    draws.arguments["training"] = training
    for name in ("running_mean", "running_var"):
        if takes_statistics and not (training and draws.draw(st.booleans())):
            draws.tensor(name, channels, change=(lambda x: x.abs() + 0.5) if name == "running_var" else None)
        else:
            draws.arguments[name] = None
    if draws.arguments["running_mean"] is None or draws.arguments["running_var"] is None:
        draws.arguments |= dict.fromkeys(("running_mean", "running_var"))
    draws.maybe("weight", channels)
    draws.maybe("bias", channels)
    draws.option("momentum", st.just(0.1))
    draws.option("eps", EPS)


def instance_norm(draws: Draws) -> None:
    """Statistics of the input."""
    draws.layouts = CHANNELS_INNERMOST
    channels = draws.size("num_features", st.integers(1, 3))
    positions = draws.draw(st.sampled_from(((2,), (2, 2), (3, 2), (2, 1, 2))))
    draws.tensor("input", draws.draw(st.sampled_from((1, 2, 3))), channels, *positions)
    draws.arguments |= {"running_mean": None, "running_var": None, "use_input_stats": True, "momentum": 0.1}
    draws.maybe("weight", channels)
    draws.maybe("bias", channels)
    draws.option("eps", EPS)


def layer_norm(draws: Draws) -> None:
    """Over the last dimension or several."""
    shapes = ((2,), (4,), (3, 2)) if "normalized_shape" in draws.takes else ((2,), (3,), (4,))
    shape = draws.fixed.get("normalized_shape") or draws.draw(st.sampled_from(shapes))
    draws.tensor("input", *draws.draw(LEADING), *shape)
    draws.arguments["normalized_shape"] = tuple(shape)
    draws.maybe("weight", *shape)
    draws.maybe("bias", *shape)
    draws.option("eps", EPS)


def group_norm(draws: Draws) -> None:
    """Groups of one channel, of several and of all."""
    groups = draws.option("num_groups", st.integers(1, 3))
    channels = draws.size("num_channels", st.integers(1, 3).map(lambda c: c * groups))
    positions = draws.draw(st.sampled_from(((2,), (2, 2), (3, 2))))
    draws.tensor("input", draws.draw(st.sampled_from(BATCHES)), channels, *positions)
    draws.maybe("weight", channels)
    draws.maybe("bias", channels)
    draws.option("eps", EPS)


def embedding(draws: Draws) -> None:
    """Indices that repeat."""
    rows = draws.size("num_embeddings", st.integers(1, 4))
    columns = draws.size("embedding_dim", st.integers(1, 3))
    shape = draws.draw(st.sampled_from(((2,), (1,), (4,), (2, 3), (0,))))
    generator = torch.Generator().manual_seed(draws.draw(st.integers(0, 99)))
    draws.arguments["input"] = torch.randint(rows, shape, generator=generator)
    draws.tensor("weight", rows, columns)
    draws.option("padding_idx", st.none() | st.integers(-rows, rows - 1))


def dropout(draws: Draws) -> None:
    """A mask of zeros and ones."""
    shape = draws.draw(SHAPES)
    draws.tensor("input", *shape)
    generator = torch.Generator().manual_seed(draws.draw(st.integers(0, 99)))
    draws.arguments["mask"] = torch.randint(2, shape, generator=generator).double()
    draws.option("p", st.sampled_from((0.5, 0.25, 0.75)))


def _quarter(x: Tensor) -> Tensor:
    """Numbers small enough not to saturate an exponential, and that float16 has."""
    return x / 4


def attention(draws: Draws) -> None:
    """More queries than keys and fewer, with several heads, masks and scales."""
    batch = draws.draw(st.sampled_from(((1,), (2,), (), (2, 2), (1, 3))))
    rows, columns, width, wide = (draws.draw(st.integers(1, 4)) for _ in range(4))
    draws.tensor("query", *batch, rows, width, change=_quarter)
    draws.tensor("key", *batch, columns, width, change=_quarter)
    draws.tensor("value", *batch, columns, wide)
    causal = draws.option("is_causal", st.booleans())
    draws.arguments |= {"attn_mask": None, "dropout_p": 0.0}
    if "attn_mask" in draws.takes and not causal:
        kind = draws.draw(st.sampled_from((None, torch.bool, torch.float64)))
        if kind is torch.float64:
            draws.tensor("attn_mask", rows, columns)
        elif kind is torch.bool:
            mask = draws.numbers().tensor(rows, columns) > 1
            draws.arguments["attn_mask"] = mask | (torch.arange(columns) == 0)
    draws.option("scale", st.none() | st.sampled_from((1.0, 0.25)))


def cell(draws: Draws) -> None:
    """Inputs and states of different widths."""
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[draws.layer.name.split("_")[0]]
    batch = draws.draw(st.sampled_from(BATCHES))
    width = draws.size("input_size", st.integers(1, 3))
    hidden = draws.size("hidden_size", st.integers(1, 3))
    draws.tensor("input", batch, width, change=_quarter)
    for name in ("hx", "cx")[: 1 + (gates == 4)]:
        draws.tensor(name, batch, hidden, change=_quarter)
    draws.tensor("w_ih", gates * hidden, width, change=_quarter)
    draws.tensor("w_hh", gates * hidden, hidden, change=_quarter)
    draws.maybe("b_ih", gates * hidden)
    draws.maybe("b_hh", gates * hidden)
    if draws.arguments["b_ih"] is None or draws.arguments["b_hh"] is None:
        draws.arguments |= dict.fromkeys(("b_ih", "b_hh"))


SHAPES = st.sampled_from(((2,), (3,), (2, 3), (1,), (2, 2, 3), (2, 3, 2, 2), (), (0, 3)))
LEADING = st.sampled_from(((1,), (2,), (3,), (2, 3), (), (0,)))
EPS = st.sampled_from((1e-5, 0.1))
_FAMILIES: dict[str, Callable[[Draws], None]] = {
    "conv{}d": conv,
    "conv_transpose{}d": conv_transpose,
    "max_pool{}d": pool,
    "avg_pool{}d": pool,
    "adaptive_max_pool{}d": adaptive,
    "adaptive_avg_pool{}d": adaptive,
}
STRATEGIES: dict[str, Callable[[Draws], None]] = {
    **{name.format(n): family for name, family in _FAMILIES.items() for n in (1, 2, 3)},
    "linear": linear,
    **dict.fromkeys(("relu", "leaky_relu", "sigmoid", "tanh"), elementwise),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    **dict.fromkeys(("cross_entropy", "nll_loss"), cross_entropy),
    **dict.fromkeys(("binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"), elementwise_loss),
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "embedding": embedding,
    "dropout": dropout,
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("rnn_tanh_cell", "rnn_relu_cell", "lstm_cell", "gru_cell"), cell),
}


def strategy(
    layer: Layer, takes: tuple[str, ...], fixed: Mapping[str, Any], needs: tuple[str, ...] = ()
) -> st.SearchStrategy[Case]:
    """Cases of the layer for a function that takes these arguments, and `needs` some of them."""

    @st.composite
    def cases(draw: Any) -> Case:
        draws = Draws(draw, layer, takes, fixed, needs)
        STRATEGIES[layer.name](draws)
        return draws.case()

    return cases()


def draw_cases(cases: st.SearchStrategy[Case], count: int, seed: int) -> list[Case]:
    """Up to `count` cases, the same for the same seed."""
    found: list[Case] = []
    for part in _parts(count, seed):

        @seeded(part.getrandbits(64))
        @_settings(-(-count // PARTS), Phase.generate)
        @given(cases)
        def collect(case: Case) -> None:
            found.append(case)

        with _no_files_here():
            collect()
    return found[:count]


def find_smallest(
    cases: st.SearchStrategy[Case], count: int, seed: int, is_wrong: Callable[[Case], bool]
) -> Case | None:
    """The smallest case that is wrong, from the first wrong one of those that `draw_cases` gives."""
    for part in _parts(count, seed):
        chosen = _settings(-(-count // PARTS), Phase.generate, Phase.shrink)
        with suppress(NoSuchExample), _no_files_here():
            return find(cases, is_wrong, settings=chosen, random=part)
    return None


def _parts(count: int, seed: int) -> list[Random]:
    """Where each part of the cases begins: `find` takes its seed from it as `draw_cases` does."""
    return [Random(PARTS * seed + part) for part in range(min(PARTS, count))]


@cache
def _home() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="torchfromscratch-check-")


@contextmanager
def _no_files_here() -> Iterator[None]:
    """Inside, hypothesis keeps what it keeps in a temporary directory, not in a .hypothesis where the user works."""
    before = getattr(configuration, "__hypothesis_home_directory", None)
    configuration.set_hypothesis_home_dir(_home().name)
    try:
        yield
    finally:
        configuration.set_hypothesis_home_dir(before)


def _settings(count: int, *phases: Phase) -> settings:
    return settings(
        max_examples=count, phases=phases, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
