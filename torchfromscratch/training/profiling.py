"""Where a training step's time goes: each layer's forward and backward pass, the optimiser, and what is between them.

Every layer is timed inside of the step, on a CPU: hooks before and after its call, and before and after the nodes that
it added to autograd's graph, read the clock. They add some microseconds to each.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.training.config import Config
from torchfromscratch.training.models import build_model, computing_layers, layer_namespace
from torchfromscratch.training.optimization import build_optimizer

FORWARD, BACKWARD = "forward", "backward"
STEP, LOSS, OPTIMIZER, BETWEEN = "whole step", "loss", "optimiser", "between them"
MATRIX = 1024  # rows and columns of the product that shows what the processor reaches


@dataclass
class Clock:
    """Seconds by name and pass, summed up in the step that runs."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))

    def start(self, name: str, part: str) -> None:
        self.seconds[name, part] -= time.perf_counter()

    def stop(self, name: str, part: str) -> None:
        self.seconds[name, part] += time.perf_counter()


@dataclass(frozen=True)
class Layer:
    """A layer in a network: its kind, what comes to it and leaves it, and multiplications in each pass."""

    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    products: dict[str, int]


class ProfiledStep:
    """A training step of a network on pictures of noise, which times its layers.

    Attributes:
        layers: by name, in the order of the forward pass.
    """

    def __init__(self, config: Config, shape: tuple[int, int, int, int], classes: int = 10) -> None:
        torch.manual_seed(config.seed)
        nn = layer_namespace(config.layers)
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model = build_model(config.model, nn=nn, in_channels=shape[1], image_size=shape[2], classes=classes)
        self.model.to(memory_format=memory_format)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.optimizer = build_optimizer(config, self.model)
        self.images = torch.randn(shape).to(memory_format=memory_format)
        self.labels = torch.randint(classes, shape[:1])
        self.layers: dict[str, Layer] = {}
        self.clock = Clock()
        for name, layer in [*_timed_layers(self.model).items(), (LOSS, self.criterion)]:
            self._time(name, layer)

    def run(self) -> dict[tuple[str, str], float]:
        """One step; the seconds of each layer's passes, of the optimiser, of what is between them and of the whole."""
        self.clock.seconds.clear()
        self.clock.start(STEP, "")
        self.optimizer.zero_grad()
        self.criterion(self.model(self.images), self.labels).backward()
        self.clock.start(OPTIMIZER, "")
        self.optimizer.step()
        self.clock.stop(OPTIMIZER, "")
        self.clock.stop(STEP, "")
        seconds = self.clock.seconds
        return {**seconds, (BETWEEN, ""): 2 * seconds[STEP, ""] - sum(seconds.values())}

    def _time(self, name: str, layer: torch.nn.Module) -> None:
        layer.register_forward_pre_hook(lambda layer, inputs: self.clock.start(name, FORWARD))

        def stop(layer: torch.nn.Module, inputs: tuple[Tensor, ...], outputs: Any) -> None:
            self.clock.stop(name, FORWARD)
            output = outputs[0] if isinstance(outputs, tuple) else outputs
            for node in _nodes_between(output, inputs):
                node.register_prehook(lambda grads: self.clock.start(name, BACKWARD))
                node.register_hook(lambda grads, outer: self.clock.stop(name, BACKWARD))
            if name not in self.layers:
                kind = type(layer).__name__
                self.layers[name] = Layer(
                    kind, tuple(inputs[0].shape), tuple(output.shape), _products(layer, inputs[0], output)
                )

        layer.register_forward_hook(stop)


def _timed_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers that hold no others, and attention as a whole, which calls none of those that it holds."""
    whole = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.MultiheadAttention)}
    inside = tuple(f"{name}." for name in whole)
    return whole | {name: layer for name, layer in computing_layers(model).items() if not name.startswith(inside)}


def _nodes_between(output: Tensor, inputs: Sequence[Any]) -> Iterator[Any]:
    """The nodes of autograd's graph that lead from an output to inputs and parameters, those themselves left out."""
    seen = {tensor.grad_fn for tensor in inputs if isinstance(tensor, Tensor)}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or type(node).__name__ == "AccumulateGrad":
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        yield node


def _products(layer: torch.nn.Module, input: Tensor, output: Tensor) -> dict[str, int]:
    """Multiplications of a convolution or a linear layer in each pass, as its definition has them."""
    if not isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
        return {FORWARD: 0, BACKWARD: 0}
    each = output.numel() * layer.weight[0].numel()
    return {FORWARD: each, BACKWARD: each * (input.requires_grad + layer.weight.requires_grad)}


def profile(steps: dict[str, ProfiledStep], repeats: int, warm_up: int = 2) -> dict[str, dict[tuple[str, str], float]]:
    """The median of each part's seconds; the steps take turns."""
    measured: dict[str, list[dict[tuple[str, str], float]]] = {label: [] for label in steps}
    for turn in range(-warm_up, repeats):
        for label, step in steps.items():
            seconds = step.run()
            if turn >= 0:
                measured[label].append(seconds)
    return {
        label: {part: statistics.median(seconds[part] for seconds in turns) for part in turns[0]}
        for label, turns in measured.items()
    }


def peak_rate(repeats: int = 9) -> float:
    """Multiplications a second that a product of matrices reaches."""
    a, b, out = torch.randn(3, MATRIX, MATRIX)
    seconds = [_seconds(lambda: torch.mm(a, b, out=out)) for _ in range(repeats)]
    return MATRIX**3 / min(seconds)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


HEADER = (
    "| {} | by hand, ms | share | of the peak | torch.nn, ms | share | of the peak | by hand / torch.nn |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: |"
)


def tables(steps: Sequence[ProfiledStep], seconds: Sequence[dict[tuple[str, str], float]], peak: float) -> str:
    """Two tables in Markdown, of the step by hand and that of torch.nn: by kinds of layers, and layer by layer.

    The share is of the whole step. "Of the peak" is how many of a convolution's multiplications, as its definition has
    them, were done in a second, in parts of `peak`: algorithms that need fewer may come to more than all.
    """
    layers = steps[0].layers
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for name, layer in layers.items():
        by_kind.setdefault(layer.kind, []).extend([(name, FORWARD), (name, BACKWARD)])
    by_kind |= {part: [(part, "")] for part in (OPTIMIZER, BETWEEN, STEP)}
    lines = [HEADER.format("kind")]
    lines += [_row(kind, parts, layers, seconds, peak) for kind, parts in by_kind.items()]
    lines += ["", HEADER.format("layer")]
    for name, layer in layers.items():
        for part in (FORWARD, BACKWARD):
            label = f"{name}, {_sizes(layer.input)} → {_sizes(layer.output)}, {part}"
            lines.append(_row(label, [(name, part)], layers, seconds, peak))
    return "\n".join(lines)


def _row(
    label: str,
    parts: Sequence[tuple[str, str]],
    layers: dict[str, Layer],
    seconds: Sequence[dict[tuple[str, str], float]],
    peak: float,
) -> str:
    products = sum(layers[name].products[part] for name, part in parts if name in layers)
    taken = [sum(of.get(part, 0.0) for part in parts) for of in seconds]
    return _cells(label, taken, [of[STEP, ""] for of in seconds], products / peak)


def _cells(label: str, taken: Sequence[float], whole: Sequence[float], at_peak: float) -> str:
    cells = [label]
    for mine, step in zip(taken, whole, strict=True):
        cells += [f"{1e3 * mine:.1f}", f"{mine / step:.1%}", f"{at_peak / mine:.0%}" if at_peak and mine else ""]
    cells.append(f"{taken[0] / taken[1]:.2f}" if taken[1] else "")
    return f"| {' | '.join(cells)} |"


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape[1:])) or "1"
