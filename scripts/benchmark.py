"""Measures the hand-written layers beside torch.nn's on this machine: time, memory, and how both grow.

    python scripts/benchmark.py                          # all of it; a quarter of an hour on two CPU cores
    python scripts/benchmark.py --only SmallVGG depthwise
    python scripts/benchmark.py --device cuda            # training steps and layers, beside what the card can do
    python scripts/benchmark.py --count                  # launches and bytes of training steps on a GPU, without one

The contenders take turns in one process: read the ratios, their median and the range of the middle half.
Threads are bound to cores, unless OMP_PROC_BIND says otherwise: unbound, works of many short steps took longer in
some processes. On Linux, MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 before the command keeps
large blocks of memory in the process, which makes both sides faster.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_PROC_BIND", "true")  # read when torch is loaded

from torchfromscratch.entry_point import loading, run

with loading():
    import torch

    from torchfromscratch.benchmark import (
        COUNT_HEADER,
        COUNTED,
        FORMATS,
        HEADER,
        Work,
        conditions,
        count,
        count_row,
        measure,
        row,
        works,
        write,
    )
    from torchfromscratch.command_line import Parser, at_least, number, threads
    from torchfromscratch.gpu_benchmark import Sizes, gpu_works, report
    from torchfromscratch.kernels.triton import IS_INSTALLED, LEAST_VERSION


def main() -> int | None:
    options = parse_arguments()
    if options.count:
        return print_counts()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    chosen = [work for work in all_works(device) if not options.only or any(text in work.name for text in options.only)]
    if device.type == "cuda":
        return report(chosen, device, Sizes(), options.repeats, options.seconds, options.output)
    described = conditions(device)
    print("\n".join(f"{key}: {value}" for key, value in described.items()), HEADER, sep="\n\n", flush=True)
    results = []
    for work in chosen:
        measured = measure(work, device, options.repeats, options.seconds)
        print("\n".join(map(row, measured)), flush=True)
        results += measured
    print("\nwritten:", *write(results, described, options.output))
    return None


def all_works(device: torch.device) -> list[Work]:
    """What can be measured on this device."""
    return gpu_works(Sizes()) if device.type == "cuda" else works()


def print_counts() -> None:
    """What training steps launch and move, by hand and with torch.nn."""
    print(COUNT_HEADER, flush=True)
    for label, (name, batch) in COUNTED.items():
        for format_name, memory_format in FORMATS.items():
            counts = count(name, batch, memory_format)
            print(count_row(f"{label}, {batch} pictures, {format_name}", counts), flush=True)


def parse_arguments() -> argparse.Namespace:
    seconds = number(float, lambda given: given > 0, "a number above 0")
    parser = Parser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only works whose names contain one of these")
    parser.add_argument(
        "--repeats", type=at_least(1), default=15, help="timed turns of each work (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=60, help="no further turn after so long (default: %(default)s)"
    )
    parser.add_argument("--threads", type=threads, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--count",
        action="store_true",
        help="count what training steps launch and move on a GPU, on meta tensors, and time nothing",
    )
    options = parser.parse_args()
    if options.count and not IS_INSTALLED:
        parser.error(f"--count counts kernels written in Triton: pip install 'triton>={LEAST_VERSION}'")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device that torch can use; leave --device out")
    names = [work.name for work in all_works(torch.device(options.device))]
    if options.only and not any(text in name for text in options.only for name in names):
        parser.error(f"--only {' '.join(options.only)}: no such work; there are {'; '.join(names)}")
    return options


if __name__ == "__main__":
    run(main)
