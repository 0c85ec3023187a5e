"""Show where the time of a training step goes on this machine's CPU, layer by layer, by hand beside torch.nn.

    python scripts/step_profile.py --threads 2                       # airbench on 1024 pictures of 3×32²
    python scripts/step_profile.py --model smallvgg-bn --batch-size 128 --no-channels-last

Medians over steps that take turns. "Of the peak" is the rate of a convolution's multiplications beside that of a
product of two large matrices.
"""

import argparse
from pathlib import Path

from torchfromscratch.entry_point import loading, run

with loading():
    import torch

    from torchfromscratch.command_line import Parser, at_least, threads
    from torchfromscratch.training.config import resolve
    from torchfromscratch.training.models import MODELS
    from torchfromscratch.training.profiling import ProfiledStep, peak_rate, profile, tables


def main() -> None:
    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    given = {name: getattr(options, name) for name in ("model", "batch_size", "channels_last")}
    configs = {layers: resolve({**given, "layers": layers, "device": "cpu"}) for layers in ("scratch", "torch")}
    shape = (configs["torch"].batch_size, 3, options.image_size, options.image_size)
    steps = {layers: ProfiledStep(config, shape) for layers, config in configs.items()}
    peak = peak_rate()
    seconds = profile(steps, options.repeats)
    text = (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"{options.model}, {'×'.join(map(str, shape))}, "
        f"{'channels last' if options.channels_last else 'contiguous'}; median of {options.repeats} steps; "
        f"peak: {peak / 1e9:.0f} thousand million multiplications a second\n\n"
        + tables(list(steps.values()), list(seconds.values()), peak)
    )
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="airbench", help="default: %(default)s")
    parser.add_argument("--batch-size", type=at_least(1), metavar="N", help="default: as in its training")
    parser.add_argument("--image-size", type=at_least(1), default=32, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument(
        "--channels-last", action=argparse.BooleanOptionalAction, default=True, help="default: %(default)s"
    )
    parser.add_argument("--threads", type=threads, help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--repeats", type=at_least(1), default=9, metavar="N", help="timed steps (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write what is printed there, too")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
