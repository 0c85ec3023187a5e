"""The command `train_cifar.py`: its options, what it prints, and its exit codes."""

import argparse
import os
import shlex
import sys
import threading
from argparse import BooleanOptionalAction
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from torchfromscratch.command_line import Parser, at_least, number, seed
from torchfromscratch.entry_point import INTERRUPTED, WRONG, reason
from torchfromscratch.extras import from_extra

with from_extra("train"):
    from torchfromscratch.training.batches import FILLS, FLIPS
    from torchfromscratch.training.checkpoint import BEST
    from torchfromscratch.training.config import (
        COMMON_DEFAULTS,
        DATASET_DEFAULTS,
        MODEL_DEFAULTS,
        OPTIMIZER_DEFAULTS,
        SMALLEST_FACTOR,
        Config,
        resolve,
    )
    from torchfromscratch.training.data import describe, load_dataset
    from torchfromscratch.training.distributed import Group, choose_device, process_group
    from torchfromscratch.training.errors import Interrupted, PeerLost, UserError
    from torchfromscratch.training.evaluation import VIEWS
    from torchfromscratch.training.models import LAYERS, MODELS
    from torchfromscratch.training.optimization import SCHEDULES
    from torchfromscratch.training.runs import RUNS, Run, choose_run

if TYPE_CHECKING:
    from torchfromscratch.training.trainer import Trainer

DESCRIPTION = """Train an image classifier whose every layer is written by hand.

Settings that are not given take values that are good for the data set and the model, see below.
Exit codes: 0 done, 1 another process of the training is lost, 2 something for you to put right, 130 stopped by Ctrl-C,
143 by SIGTERM."""

BELOW = "default: see below"
TABLE = "Defaults that depend on data set and model; if no model is chosen, it is the data set's first:"

# How the table of defaults names what `Config` calls otherwise, or calls longer.
COLUMNS = {
    "epochs": "epochs",
    "batch_size": "batch",
    "optimizer": "optimizer",
    "lr": "rate",
    "weight_decay": "decay",
    "crop_padding": "crop",
    "flip": "flip",
}

HINT = """On Linux, a CPU trains some 10 % faster, with either kind of layers, if large blocks of memory are kept
instead of being given back to the system after each use:
  MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 python scripts/train_cifar.py ..."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        arguments: without the program's name; None takes them from the command line.
    """
    options = build_parser().parse_args(arguments)
    try:
        with _report_write_errors_once(), process_group() as group:
            return _train(options, group)
    except PeerLost as error:
        print(f"error: {error}; the last checkpoint is intact", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint, if there was one, is intact", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> Parser:
    """The options; those that are settings have the names of `Config`'s fields, None if not given."""
    rate = number(float, lambda given: given > 0, "a number above 0")
    factor = number(float, lambda given: given >= SMALLEST_FACTOR, f"a number of at least {SMALLEST_FACTOR}")
    decay = number(float, lambda given: given >= 0, "a number of at least 0")
    fraction = number(float, lambda given: 0 <= given < 1, "a number from 0 to below 1")
    parser = Parser(
        usage="%(prog)s [--OPTION VALUE ...]",
        description=DESCRIPTION,
        epilog="\n\n".join([TABLE, _defaults(), HINT]),
    )

    what = parser.add_argument_group("what to train")
    what.add_argument("--dataset", choices=DATASET_DEFAULTS, help=f"digits needs no download; {_usually('dataset')}")
    what.add_argument(
        "--data-dir", metavar="DIR", help=f"where the data set lies or is downloaded to; {_usually('data_dir')}"
    )
    what.add_argument(
        "--image-size",
        type=at_least(1),
        metavar="PIXELS",
        help="for --dataset folder; default: about that of the pictures",
    )
    what.add_argument("--model", choices=MODELS, help=BELOW)
    what.add_argument("--layers", choices=LAYERS, help=f"written by hand, or torch's own; {_usually('layers')}")

    how = parser.add_argument_group("how to train")
    how.add_argument("--epochs", type=at_least(1), metavar="N", help=f"passes over the training pictures; {BELOW}")
    how.add_argument("--batch-size", type=at_least(1), metavar="N", help=f"over all processes together; {BELOW}")
    how.add_argument("--lr", type=rate, metavar="RATE", help=f"the schedule's highest rate; {BELOW}")
    how.add_argument("--schedule", choices=SCHEDULES, help=_usually("schedule"))
    how.add_argument("--optimizer", choices=OPTIMIZER_DEFAULTS, help=BELOW)
    how.add_argument(
        "--momentum", type=fraction, metavar="M", help=f"SGD's, Nesterov's if it is not 0; {_usually('momentum')}"
    )
    how.add_argument("--weight-decay", type=decay, metavar="W", help=BELOW)
    how.add_argument(
        "--norm-bias-lr",
        type=factor,
        metavar="FACTOR",
        help=f"of the learning rate, for normalisation's biases; {_usually('norm_bias_lr')}",
    )
    how.add_argument(
        "--label-smoothing",
        type=fraction,
        metavar="S",
        help=f"share of each label that all classes divide, in the training's loss only; {_usually('label_smoothing')}",
    )
    how.add_argument(
        "--lookahead",
        action=BooleanOptionalAction,
        help=f"draw the weights back to their moving average every five steps; {_usually('lookahead')}",
    )
    how.add_argument("--crop-padding", type=at_least(0), metavar="PIXELS", help=f"random shifts, 0 for none; {BELOW}")
    how.add_argument(
        "--crop-fill", choices=FILLS, help=f"what moves in at a shifted picture's edge; {_usually('crop_fill')}"
    )
    how.add_argument(
        "--flip",
        choices=FLIPS,
        help=f"mirror half of the training pictures, drawn every epoch or taking turns; {BELOW}",
    )
    how.add_argument(
        "--test-views",
        choices=VIEWS,
        help=f"the last test answers from the mean over these; {_usually('test_views')} but with --flip none",
    )
    how.add_argument("--seed", type=seed, metavar="N", help=f"of weights, order and augmentation; {_usually('seed')}")

    where = parser.add_argument_group("where and how fast")
    where.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help=_usually("device"))
    where.add_argument(
        "--channels-last",
        action=BooleanOptionalAction,
        help=f"memory format of images and weights; {_usually('channels_last')}, yes on CUDA",
    )
    where.add_argument("--amp", action=BooleanOptionalAction, help=f"mixed precision; {_usually('amp')}")
    where.add_argument(
        "--compile", action=BooleanOptionalAction, help=f"torch.compile the model; {_usually('compile')}"
    )

    run = parser.add_argument_group("the run")
    directory = run.add_mutually_exclusive_group()
    directory.add_argument(
        "--name", type=_plain_name, help="logs and checkpoints go to runs/NAME; default: DATASET-MODEL-LAYERS"
    )
    directory.add_argument("--run-dir", type=Path, metavar="DIR", help="logs and checkpoints go to DIR")
    run.add_argument("--resume", action="store_true", help="go on with the run, by default the latest in runs/")
    run.add_argument(
        "--checkpoint-every",
        type=at_least(0),
        metavar="STEPS",
        help=f"besides the end of each epoch, 0 for never; {_usually('checkpoint_every')}",
    )
    return parser


def _usually(setting: str) -> str:
    """The default of a setting that is the same for all data sets, and for all models but those named."""
    values = {"default": COMMON_DEFAULTS[setting]}
    values |= {model: settings[setting] for model, settings in MODEL_DEFAULTS.items() if setting in settings}
    return ", ".join(f"{name}: {_in_words(value)}" for name, value in values.items())


def _defaults() -> str:
    """A table of the settings that depend on data set and model, a line for models that share them."""
    lines = [("data set", "model", *COLUMNS.values())]
    for dataset in DATASET_DEFAULTS:
        usual = resolve({"dataset": dataset}).model
        models: dict[tuple[str, ...], list[str]] = {}
        for model in sorted(MODELS, key=lambda model: model != usual):
            config = resolve({"dataset": dataset, "model": model})
            models.setdefault(tuple(_in_words(getattr(config, name)) for name in COLUMNS), []).append(model)
        lines += [(dataset, ", ".join(names), *settings) for settings, names in models.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _in_words(setting: object) -> str:
    return {True: "yes", False: "no"}[setting] if isinstance(setting, bool) else str(setting)


def _train(options: argparse.Namespace, group: Group) -> int:
    try:
        with ExitStack() as held:
            run = group.on_main(lambda: _choose_run(options, held))
            trainer = _build_trainer(run, group)
            row = trainer.fit()
    except Interrupted as interruption:
        if group.is_main:
            print(f"stopped and saved; to go on: {_command_to_go_on(run.directory)}", file=sys.stderr)
        return 128 + interruption.signal
    except Exception as error:
        if (line := reason(error)) is None:
            raise
        if group.is_main or not isinstance(error, UserError):  # a UserError is raised on all of them
            print(f"error: {line}", file=sys.stderr)
        return WRONG
    if group.is_main:
        _print_outcome(row, trainer.position.best_accuracy, run)
    return 0


@contextmanager
def _report_write_errors_once() -> Iterator[None]:
    """TensorBoard writes in a thread of its own, which prints what it also raises at the next write."""
    usual = threading.excepthook

    def without_write_errors(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            usual(failure)

    threading.excepthook = without_write_errors
    try:
        yield
    finally:
        threading.excepthook = usual


def _choose_run(options: argparse.Namespace, held: ExitStack) -> Run:
    given = {field.name: getattr(options, field.name) for field in fields(Config)}
    directory = RUNS / options.name if options.name else options.run_dir
    return choose_run(given, directory, resume=options.resume, held=held)


def _build_trainer(run: Run, group: Group) -> "Trainer":
    config = run.config
    device = group.on_each(lambda: choose_device(config.device, group.local_rank))
    dataset = group.on_each(lambda: load_dataset(config.dataset, Path(config.data_dir), config.image_size))
    with from_extra(
        "train"
    ):  # not before: TensorBoard and matplotlib take long, and nobody waits for them with a mistake
        from torchfromscratch.training.trainer import Trainer

    trainer = Trainer(config, dataset, run.directory, device=device, group=group, checkpoint=run.checkpoint)
    if group.is_main:
        weights = sum(weight.numel() for weight in trainer.model.parameters())
        layers = "layers written by hand" if config.layers == "scratch" else "torch's own layers"
        data = "\n".join([f"{config.dataset}: {describe(trainer.summary)}", *dataset.remarks])
        start = "from the beginning" if run.checkpoint is None else f"going on at step {trainer.step}"
        print(
            f"{config.model}, {weights:,} weights, {layers}\n"
            f"{data}\n"
            f"{config.optimizer}, batches of {config.batch_size}, learning rate {config.lr:g} ({config.schedule}), "
            f"weight decay {config.weight_decay:g}, seed {config.seed}\n"
            f"{config.epochs} epochs on {group.size} × {device.type}, {start}\n"
            f"logs and checkpoints in {run.directory}",
            flush=True,
        )
        if trainer.departures:
            print(
                f"note: the run goes on under other conditions ({'; '.join(trainer.departures)}): sums round "
                "otherwise, so its weights will not be the very ones that it would have had",
                file=sys.stderr,
            )
    return trainer


def _print_outcome(row: dict[str, float], best_accuracy: float, run: Run) -> None:
    epochs = run.config.epochs
    print(
        f"test accuracy {row['test_accuracy']:.2%} after {epochs} {'epoch' if epochs == 1 else 'epochs'}; "
        f"the best, {best_accuracy:.2%}, is in {run.directory / BEST}\n"
        f"to look inside: tensorboard --logdir {shlex.quote(str(run.directory))}"
    )


def _command_to_go_on(directory: Path) -> str:
    launcher = ["python"]
    if "LOCAL_WORLD_SIZE" in os.environ:
        launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]
    return shlex.join([*launcher, sys.argv[0], "--resume", "--run-dir", str(directory)])


def _plain_name(text: str) -> str:
    """An argparse type: the name of a directory in runs/, where --resume finds it again."""
    if text in ("", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the plain name of a directory in {RUNS}; use --run-dir")
    return text
