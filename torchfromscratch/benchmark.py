"""What hand-written layers cost beside torch.nn's, measured side by side on the user's own machine.

The contenders of a work take turns in one process, so that whatever else the machine does meets all of them,
and what counts are ratios: of each turn, their median, and the range of the middle half.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor

import torchfromscratch
from torchfromscratch.comparison import peak_allocation
from torchfromscratch.convert import convert
from torchfromscratch.counting import Count
from torchfromscratch.counting import count as count_launches
from torchfromscratch.extras import from_extra
from torchfromscratch.kernels.triton import IS_INSTALLED
from torchfromscratch.kernels.triton.cards import takes
from torchfromscratch.training.models import build_model, computing_layers, layer_namespace, optimizer_namespace

Step = Callable[[], object]
Contenders = dict[str, Step]
OURS, THEIRS = "by hand", "torch.nn"
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
BATCH = 128
RECIPE, RECIPE_BATCH = "airbench", 1024  # the network that is measured layer by layer, as in its training
WARM_UP = 2
CALLS_ON_CUDA = 10  # between two events: a loop of training does not wait for each of its steps either

# The training steps on 3×32² pictures that are counted, and the ratios to torch.nn that are aimed at: of launches, of
# bytes moved, and of the largest tensor.
COUNTED = {"SmallVGG": ("smallvgg", 512), "ResNet-18": ("resnet18", 128), "ViT": ("vit", 128)}
COUNT_BARS = (1.5, 1.3, 1.1)


@dataclass(frozen=True)
class Work:
    """Something to measure: its contenders on a device, and the ratio to torch.nn that is aimed at.

    It is measured inside of its surroundings. `precision` is that of its products, if it is to be compared with what
    the card can do.
    """

    name: str
    contenders: Callable[[torch.device], Contenders]
    bar: float | None = None
    unit: str = "ms"
    surroundings: Callable[[], AbstractContextManager] = nullcontext
    precision: str | None = None


@dataclass(frozen=True)
class Result:
    """What a contender took, and its ratios to torch.nn: the median and the middle half.

    `share` is of what a GPU can do: the time that it needs at least over the time that it took.
    """

    work: str
    contender: str
    measured: float
    unit: str
    ratio: float
    low: float
    high: float
    bar: float | None
    share: float | None = None


def works() -> list[Work]:
    """All that can be measured, the quick ones first."""
    found = []
    for label, memory_format in FORMATS.items():
        found.append(Work(f"SmallVGG, {label}", training("smallvgg", memory_format), 1.0))
    found += [
        Work("SmallVGG on 8×8 digits, batch 16", training("smallvgg", torch.contiguous_format, (16, 1, 8, 8)), 1.6),
        Work(
            "SmallVGG beside a busy process",
            training("smallvgg", torch.contiguous_format),
            1.6,
            surroundings=busy_process,
        ),
        Work("SmallVGG, bytes held for the backward pass", saved_bytes, 0.9, "MiB"),
        Work("SmallVGG, peak memory of a step", peak, 1.0, "MiB"),
        Work("SmallVGG-BN, channels last", training("smallvgg-bn", torch.channels_last)),
        Work("wide network, channels last", wide, 1.0),
        Work("ResNet-18 at 224², batch 8", resnet18, 1.2),
        Work("3×3, 64 channels at 16²", one_convolution((64, 64, 16, 16), 64, 3, others=True)),
        Work("1×1, 256 channels at 14²", one_convolution((32, 256, 14, 14), 256, 1, others=True)),
        Work("3×3 dilated by 2, 256 channels at 33²", one_convolution((4, 256, 33, 33), 256, 3, dilation=2)),
        Work("3×3×3, 64 channels at 8×28²", one_convolution((2, 64, 8, 28, 28), 64, 3)),
    ]
    for label, memory_format in FORMATS.items():
        depthwise = one_convolution((32, 128, 28, 28), 128, 3, groups=128, memory_format=memory_format)
        found.append(Work(f"depthwise 3×3, 128 channels at 28², {label}", depthwise, 1.5))
    for size in (15, 31):
        found.append(
            Work(f"{size}×{size}, 64 channels at 64², contiguous", one_convolution((1, 64, 64, 64), 64, size), 0.5)
        )
    found.append(Work("SmallVGG under torch.compile", compiled_training, 1.0))
    for batch in (16, 64, 256, 512):
        found.append(Work(f"growing batch: {batch}", one_convolution((batch, 64, 16, 16), 64, 3)))
    for side in (16, 32, 64, 128):
        found.append(Work(f"growing picture: {side}²", one_convolution((8, 64, side, side), 64, 3)))
    for channels in (16, 64, 256, 512):
        found.append(Work(f"growing channels: {channels}", one_convolution((16, channels, 16, 16), channels, 3)))
    for size in (15, 31):
        large = one_convolution((1, 64, 64, 64), 64, size, memory_format=torch.channels_last)
        found.append(Work(f"{size}×{size}, 64 channels at 64², channels last", large, 0.1))
    pictures = (RECIPE_BATCH, 3, 32, 32)
    found.append(
        Work(f"{RECIPE}, batch {RECIPE_BATCH}, channels last", training(RECIPE, torch.channels_last, pictures))
    )
    return found + layers_of(RECIPE, pictures)


@contextmanager
def busy_process() -> Iterator[None]:
    """Another process that keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def training(
    name: str, memory_format: torch.memory_format, shape: tuple[int, int, int, int] = (BATCH, 3, 32, 32)
) -> Callable[[torch.device], Contenders]:
    """One SGD step of a network on a batch of pictures (N, C, size, size)."""

    def contenders(device: torch.device) -> Contenders:
        return {
            label: sgd_step(
                lambda nn: build_model(name, nn=nn, in_channels=shape[1], image_size=shape[2], classes=10),
                layers,
                shape,
                device,
                memory_format,
            )
            for label, layers in ((OURS, "scratch"), (THEIRS, "torch"))
        }

    return contenders


def wide(device: torch.device) -> Contenders:
    """One SGD step of five 3×3 convolutions, 3 → 64 → 256 → 256 → 256 → 256, with batch norm, batch 64."""

    def build(nn: ModuleType) -> torch.nn.Module:
        layers: list[torch.nn.Module] = []
        for inputs, outputs, pooled in (
            (3, 64, False),
            (64, 256, True),
            (256, 256, False),
            (256, 256, True),
            (256, 256, True),
        ):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if pooled else []
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 10))

    return {
        label: sgd_step(build, layers, (64, 3, 32, 32), device, torch.channels_last)
        for label, layers in ((OURS, "scratch"), (THEIRS, "torch"))
    }


def resnet18(device: torch.device) -> Contenders:
    """One SGD step of torchvision's ResNet-18, converted and as it is."""
    with from_extra("train"):
        import torchvision

    def build(nn: ModuleType) -> torch.nn.Module:
        model = torchvision.models.resnet18(num_classes=10)
        return model if nn is torch.nn else convert(model)

    return {
        label: sgd_step(build, layers, (8, 3, 224, 224), device, torch.contiguous_format)
        for label, layers in ((OURS, "scratch"), (THEIRS, "torch"))
    }


def compiled_training(device: torch.device) -> Contenders:
    """The training step of SmallVGG, each model compiled."""

    def build(nn: ModuleType) -> torch.nn.Module:
        network = build_model("smallvgg", nn=nn, in_channels=3, image_size=32, classes=10)
        return torch.compile(network, fullgraph=True)  # type: ignore[return-value]

    return {
        label: sgd_step(build, layers, (BATCH, 3, 32, 32), device, torch.contiguous_format)
        for label, layers in ((OURS, "scratch"), (THEIRS, "torch"))
    }


def sgd_step(
    build: Callable[[ModuleType], torch.nn.Module],
    layers: str,
    shape: tuple[int, ...],
    device: torch.device,
    memory_format: torch.memory_format,
) -> Step:
    """Forward pass, backward pass and update on a fixed batch."""
    torch.manual_seed(0)
    nn = layer_namespace(layers)
    model = build(nn).to(device).to(memory_format=memory_format)
    options = (
        {"foreach": True} if device.type == "meta" else {}
    )  # torch's default on CUDA, which it does not take there
    optimizer = optimizer_namespace(layers).SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True, **options)
    criterion = nn.CrossEntropyLoss()
    images = torch.randn(shape, device=device).to(memory_format=memory_format)
    labels = torch.randint(10, shape[:1], device=device)

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()

    return step


def layers_of(name: str, shape: tuple[int, int, int, int]) -> list[Work]:
    """A work for each layer of a network on pictures of this shape, in channels last; one for all that are alike."""
    found = {}
    for layer, input in layer_inputs(name, shape):
        outputs = f" to {layer.weight.shape[0]}" if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) else ""
        label = f"{name}: {type(layer).__name__}{outputs} on {'×'.join(map(str, input.shape[1:]))}"
        found[label] = one_layer(layer, (shape[0], *input.shape[1:]), input.requires_grad)
    return [Work(label, contenders) for label, contenders in found.items()]


def layer_inputs(name: str, shape: tuple[int, int, int, int]) -> list[tuple[torch.nn.Module, Tensor]]:
    """A network's layers that compute something, of torch.nn, in their order, and what two pictures bring to each."""
    model = build_model(name, nn=torch.nn, in_channels=shape[1], image_size=shape[2], classes=10)
    found: list[tuple[torch.nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: found.append((layer, inputs[0])))
        for layer in computing_layers(model).values()
    ]
    model(torch.zeros(2, *shape[1:]))
    for hook in hooks:
        hook.remove()
    return found


def one_layer(layer: torch.nn.Module, shape: tuple[int, ...], needs_grad: bool) -> Callable[[torch.device], Contenders]:
    """A layer as it trains: the forward pass, and those gradients that are asked for there."""

    def contenders(device: torch.device) -> Contenders:
        torch.manual_seed(0)
        x = torch.randn(shape, device=device)
        x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
        x.requires_grad_(needs_grad)

        def gradients(layer: torch.nn.Module) -> Step:
            layer.to(device).to(memory_format=torch.channels_last)
            wanted = [tensor for tensor in (x, *layer.parameters()) if tensor.requires_grad]
            dy = torch.randn_like(layer(x))
            return lambda: torch.autograd.grad(layer(x), wanted, dy)

        return {OURS: gradients(convert(copy.deepcopy(layer))), THEIRS: gradients(copy.deepcopy(layer))}

    return contenders


def one_convolution(
    shape: tuple[int, ...],
    filters: int,
    size: int,
    *,
    groups: int = 1,
    dilation: int = 1,
    memory_format: torch.memory_format = torch.contiguous_format,
    others: bool = False,
) -> Callable[[torch.device], Contenders]:
    """Forward pass and both gradients of one convolution, padded to keep the size of the pictures or volumes."""
    dims, padding = len(shape) - 2, dilation * (size // 2)

    def contenders(device: torch.device) -> Contenders:
        torch.manual_seed(0)
        x = torch.randn(shape, device=device).to(memory_format=memory_format).requires_grad_()
        w = torch.randn(filters, shape[1] // groups, *[size] * dims, device=device) / size
        w = w.to(memory_format=memory_format).requires_grad_()
        dy = torch.randn(shape[0], filters, *shape[2:], device=device).to(memory_format=memory_format)
        functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            label: functools.partial(
                getattr(functional, f"conv{dims}d"), padding=padding, dilation=dilation, groups=groups
            )
            for label, functional in ((OURS, torchfromscratch.functional), (THEIRS, torch.nn.functional))
        }
        if others:
            functions["F.unfold and matmul"] = unfold_and_matmul
            if importlib.util.find_spec("einconv"):
                functions["einconv"] = einconv(padding)

        def gradients(function: Callable[[Tensor, Tensor], Tensor]) -> Step:
            return lambda: torch.autograd.grad(function(x, w), (x, w), dy)

        return {label: gradients(function) for label, function in functions.items()}

    return contenders


def unfold_and_matmul(x: Tensor, w: Tensor) -> Tensor:
    """The usual way to write a convolution from scratch."""
    columns = torch.nn.functional.unfold(x, w.shape[2:], padding=w.shape[2] // 2)
    return (w.flatten(1) @ columns).view(x.shape[0], -1, *x.shape[2:])


def einconv(padding: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The convolution of the package einconv."""
    functionals = importlib.import_module("einconv.functionals")
    return lambda x, w: functionals.convNd(x, w, padding=padding)


def saved_bytes(device: torch.device) -> dict[str, Any]:
    """Bytes that SmallVGG's forward pass keeps for its backward pass, parameters not counted."""

    def bytes_held(layers: str) -> int:
        nn = layer_namespace(layers)
        model = build_model("smallvgg", nn=nn, in_channels=3, image_size=32, classes=10).to(device)
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = torch.randn(BATCH, 3, 32, 32, device=device)
        labels = torch.randint(10, (BATCH,), device=device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = nn.CrossEntropyLoss()(model(images), labels)
        total = sum(kept.values())  # while the loss keeps them alive, no two storages share an address
        del loss
        return total

    return {OURS: lambda: bytes_held("scratch"), THEIRS: lambda: bytes_held("torch")}


def peak(device: torch.device) -> dict[str, Any]:
    """Bytes that a training step of SmallVGG allocates at most."""
    steps = training("smallvgg", torch.contiguous_format)(device)
    return {
        label: lambda step=step: peak_allocation(step, on_cuda=device.type == "cuda") for label, step in steps.items()
    }


def count(name: str, batch: int, memory_format: torch.memory_format) -> dict[str, Count]:
    """What the second training step of a network launches and moves: the first makes the optimiser's state."""
    found = {}
    for label, step in training(name, memory_format, (batch, 3, 32, 32))(torch.device("meta")).items():
        step()
        found[label] = count_launches(step)
    return found


COUNT_HEADER = (
    "| training step | launches | GB moved | largest tensor, MB |\n| --- | --: | --: | --: |\n"
    f"| aim | {COUNT_BARS[0]:g} × | {COUNT_BARS[1]:g} × | {COUNT_BARS[2]:g} × |"
)


def count_row(label: str, counts: dict[str, Count]) -> str:
    """A line of the table: by hand / torch.nn = their ratio."""
    ours, theirs = counts[OURS], counts[THEIRS]
    cells = [f"{ours.launches:,} / {theirs.launches:,} = {ours.launches / theirs.launches:.2f}"]
    for unit, mine, other in (
        (1e9, ours.bytes_moved, theirs.bytes_moved),
        (1e6, ours.largest, theirs.largest),
    ):
        cells.append(f"{mine / unit:.3g} / {other / unit:.3g} = {mine / other:.2f}")
    return f"| {label} | {' | '.join(cells)} |"


def measure(work: Work, device: torch.device, repeats: int, seconds: float) -> list[Result]:
    """Each contender in turn: `repeats` times, or as often as `seconds` allow, but at least once."""
    contenders = work.contenders(device)
    measurements: dict[str, list[float]] = {label: [] for label in contenders}
    if work.unit == "MiB":
        for label, count in contenders.items():
            measurements[label].append(count() / 2**20)  # type: ignore[operator]
        repeats = -WARM_UP
    with work.surroundings():
        start = time.perf_counter()
        for turn in range(-WARM_UP, repeats):
            late = time.perf_counter() - start > seconds
            if late and measurements[THEIRS]:
                break
            for label, step in contenders.items():
                elapsed = milliseconds(step, device)
                if turn >= 0 or late:
                    measurements[label].append(elapsed)
    return [summary(work, label, measurements[label], measurements[THEIRS]) for label in contenders]


def milliseconds(step: Step, device: torch.device) -> float:
    """What a call takes; on a GPU from event to event, the mean of some calls that do not wait for one another."""
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(CALLS_ON_CUDA):
            step()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / CALLS_ON_CUDA
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def summary(work: Work, label: str, measured: list[float], theirs: list[float]) -> Result:
    ratios = sorted(mine / other for mine, other in zip(measured, theirs, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    bar = work.bar if label == OURS else None
    return Result(work.name, label, statistics.median(measured), work.unit, statistics.median(ratios), low, high, bar)


def conditions(device: torch.device) -> dict[str, str]:
    """What the figures depend on."""
    if device.type == "cuda":
        return conditions_of_card(device)
    return {
        "torch": torch.__version__,
        "device": f"{cpu_name()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "type": "float32",
        "threads bound to cores": os.environ.get("OMP_PROC_BIND", "no"),
        "python": platform.python_version(),
    }


def conditions_of_card(device: torch.device) -> dict[str, str]:
    """What the figures of a GPU depend on."""
    card = torch.cuda.get_device_properties(device)
    triton = metadata.version("triton") if IS_INSTALLED else "none that is used"
    return {
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
        "triton": triton,
        "device": f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}",
        "kernels in Triton": "yes" if takes(device.index or 0) and IS_INSTALLED else "no: torch's arithmetic",
        "python": platform.python_version(),
    }


def measured_with(*packages: str) -> str:
    """The versions and the processor that a document's figures belong to, as a line of it."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    return f"Measured with {versions}, on the processor {cpu_name()}."


def cpu_name() -> str:
    """The processor's name, as Linux tells it."""
    information = Path("/proc/cpuinfo")
    names = (
        [line for line in information.read_text(encoding="utf-8").splitlines() if "model name" in line]
        if information.exists()
        else []
    )
    return names[0].partition(": ")[2] if names else platform.processor() or platform.machine()


HEADER = "| work | by | median | ratio to torch.nn | middle half | bar |\n| --- | --- | --: | --: | --: | --: |"
HEADER_OF_CARD = HEADER.replace("bar |", "bar | of the card |") + " --: |"


def row_of_card(result: Result) -> str:
    """A line of the table for a GPU."""
    return f"{row(result)} {'' if result.share is None else f'{result.share:.0%}'} |"


def row(result: Result) -> str:
    """A line of the table."""
    ratio, middle = "", ""
    if result.contender != THEIRS:
        ratio, middle = figure(result.ratio), f"{figure(result.low)} to {figure(result.high)}"
    bar = "" if result.bar is None else f"{result.bar:g}"
    measured = f"{result.measured:.1f}" if result.measured >= 10 or result.unit != "ms" else f"{result.measured:.3g}"
    return f"| {result.work} | {result.contender} | {measured} {result.unit} | {ratio} | {middle} | {bar} |"


def figure(ratio: float) -> str:
    """A ratio to two digits behind the point, or as many as show it."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def write(results: Iterable[Result], described: dict[str, str], directory: Path) -> list[Path]:
    """The results as JSON, as a table and as a picture."""
    results = list(results)
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / name for name in ("benchmark.json", "benchmark.md", "benchmark.png")]
    files[0].write_text(
        json.dumps({"conditions": described, "results": [asdict(r) for r in results]}, indent=1) + "\n",
        encoding="utf-8",
    )
    lines = [", ".join(f"{key} {value}" for key, value in described.items()), "", HEADER, *map(row, results)]
    files[1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(results, files[2])
    return files


def draw(results: list[Result], file: Path) -> None:
    """The ratios as bars, the middle halves as whiskers, torch.nn as a line, what is aimed at as marks."""
    with from_extra("train"):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

    shown = [result for result in results if result.contender == OURS]
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(shown) + 1.2), layout="constrained")
    places = range(len(shown))
    ratios = [result.ratio for result in shown]
    whiskers = [[max(0.0, r.ratio - r.low) for r in shown], [max(0.0, r.high - r.ratio) for r in shown]]
    axes.barh(places, ratios, xerr=whiskers, color="tab:blue", ecolor="0.4")
    aimed = [(place, result.bar) for place, result in enumerate(shown) if result.bar is not None]
    axes.scatter(
        [bar for _, bar in aimed], [place for place, _ in aimed], marker="|", s=200, color="tab:red", label="aim"
    )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [result.work for result in shown])
    axes.invert_yaxis()
    axes.set_xlabel("by hand / torch.nn")
    if aimed:
        axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
