"""Times one training step by hand against torch.nn's, side by side on this machine.

    python scripts/benchmark.py
    python scripts/benchmark.py --device cuda --model resnet18

Both networks have the same weights and see the same pictures; their steps alternate in one process, so
whatever else the machine does meets both. Read the ratios: their median, and the range of the middle half.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from torchfromscratch.training.models import MODELS, build_model, layer_namespace, optimizer_namespace

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def main() -> None:
    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"one SGD step of {options.model}, {options.batch_size} pictures of 3×32×32, float32")
    print(f"torch {torch.__version__} on {name}, {options.repeats} alternating steps each\n")
    print(f"{'memory format':<15}{'by hand':>10}{'torch.nn':>10}{'ratio':>8}   middle half")
    for label, memory_format in FORMATS.items():
        steps = [training_step(layers, options, device, memory_format) for layers in ("scratch", "torch")]
        ours, theirs = alternate(*steps, options.repeats, device)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{label:<15}{1e3 * statistics.median(ours):>7.1f} ms{1e3 * statistics.median(theirs):>7.1f} ms"
            f"{middle:>8.2f}   {low:.2f} to {high:.2f}"
        )


def training_step(
    layers: str, options: argparse.Namespace, device: torch.device, memory_format: torch.memory_format
) -> Callable[[], None]:
    """One forward pass, backward pass and update on a fixed batch."""
    torch.manual_seed(0)
    nn = layer_namespace(layers)
    model = build_model(options.model, nn=nn, in_channels=3, image_size=32, classes=10)
    model = model.to(device).to(memory_format=memory_format)
    optimizer = optimizer_namespace(layers).SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True)
    criterion = nn.CrossEntropyLoss()
    images = torch.randn(options.batch_size, 3, 32, 32, device=device).to(memory_format=memory_format)
    labels = torch.randint(10, (options.batch_size,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()

    return step


def alternate(
    ours: Callable[[], None], theirs: Callable[[], None], repeats: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of each step, after three of each to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(-3, repeats):
        for step, seconds in zip((ours, theirs), times, strict=True):
            elapsed = timed(step, device)
            if repeat >= 0:
                seconds.append(elapsed)
    return times


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step; on a GPU until its last kernel is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="smallvgg")
    parser.add_argument("--batch-size", type=int, default=128, help="pictures in a step (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    options = parser.parse_args()
    if options.repeats < 2 or options.batch_size < 1:
        parser.error("--repeats must be at least 2 and --batch-size at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device that torch can use; leave --device out")
    return options


if __name__ == "__main__":
    main()
