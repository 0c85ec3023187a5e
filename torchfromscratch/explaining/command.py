"""`python -m torchfromscratch explain LAYER`: options to tensors, and the explanation to where it is wanted."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.command_line import at_least, seed
from torchfromscratch.errors import UserError
from torchfromscratch.explaining import layers
from torchfromscratch.explaining.arguments import require_readable
from torchfromscratch.explaining.explanation import Explanation, sizes
from torchfromscratch.explaining.text import as_text

Size = tuple[int, ...]


def register(subcommands: Any) -> None:
    """Add `explain` and its layers to the command line."""
    explain = subcommands.add_parser(
        "explain",
        help="show every number of one small forward and backward pass",
        description="Shows every number of one small forward and backward pass, and where it came from.",
    )
    layer_parsers = explain.add_subparsers(metavar="LAYER", required=True, title="layers")
    for name, (help, default, add_options, build) in LAYERS.items():
        parser = layer_parsers.add_parser(
            name, help=help, description=f"Explains {name}: {help}.", formatter_class=_Help, epilog=EPILOG
        )
        parser.add_argument("--input", type=_size, default=default, metavar="SIZE", help=f"default {sizes(default)}")
        parser.add_argument("--input-values", nargs="+", metavar="NUMBER", help="in the order of memory")
        add_options(parser)
        if name != "cross_entropy":
            parser.add_argument("--grad-values", nargs="+", metavar="NUMBER", help="dL/dy, in the order of memory")
        parser.add_argument("--seed", type=seed, default=0, help="of the numbers that are not given; default 0")
        parser.add_argument("--steps", type=at_least(0), metavar="N", help="print at most N steps of each pass")
        parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to explore")
        parser.add_argument("--png", type=Path, metavar="FILE", help="write a picture")
        parser.add_argument("--gif", type=Path, metavar="FILE", help="write an animation")
        parser.set_defaults(run=_run, build=build)


EPILOG = "Write sizes as 4x4, and a list of numbers that starts with a minus sign as --input-values=-1,2,3."


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)


def _run(args: argparse.Namespace) -> int:
    """Build the explanation and show it."""
    try:
        _require_readable(args)
        explanation = args.build(args)
        written = _write_files(explanation, args)
    except (ValueError, RuntimeError, TypeError, IndexError, NotImplementedError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    print("\n".join(f"wrote {path}" for path in written) or as_text(explanation, args.steps))
    return 0


def _write_files(explanation: Explanation, args: argparse.Namespace) -> list[Path]:
    """Write what was asked for; matplotlib is imported only where a picture is."""
    written = []
    if args.html:
        from torchfromscratch.explaining.page import as_page

        args.html.write_text(as_page(explanation), encoding="utf-8")
        written.append(args.html)
    if args.png or args.gif:
        from torchfromscratch.explaining import figure

        if args.png:
            figure.save_picture(explanation, args.png)
            written.append(args.png)
        if args.gif:
            figure.save_animation(explanation, args.gif)
            written.append(args.gif)
    return written


def _require_readable(args: argparse.Namespace) -> None:
    """Refuse what no one could read, before it takes time and memory."""
    outputs = getattr(args, "out_channels", None) or getattr(args, "out_features", 1)
    others = math.prod(getattr(args, "table", (1,))) * getattr(args, "keys", 1) * 4 * getattr(args, "hidden", 1) ** 2
    products = math.prod(args.input) * math.prod(getattr(args, "kernel", (1,))) * outputs * others
    require_readable(products, "--input or the layer")


def example(layer: str, *options: str) -> Explanation:
    """What the command shows of a layer."""
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["explain", layer, *options])
    explanation: Explanation = args.build(args)
    return explanation


class _Numbers:
    """Tensors from the numbers given on the command line, or small whole numbers drawn from the seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, option: str, given: list[str] | None, shape: Size, low: int, high: int) -> Tensor:
        if given is None:
            return torch.randint(low, high + 1, shape, generator=self.generator).double()
        numbers = [_number(option, text) for text in re.split(r"[\s,;\[\]]+", " ".join(given)) if text]
        if len(numbers) != math.prod(shape):
            raise ValueError(
                f"{option}: {sizes(shape) or '1'} needs {math.prod(shape)} numbers, but {len(numbers)} were given"
            )
        return torch.tensor(numbers, dtype=torch.float64).view(shape)

    def grad(self, args: argparse.Namespace) -> Callable[[torch.Size], Tensor]:
        return lambda shape: self("--grad-values", args.grad_values, tuple(shape), -2, 2)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option}: {text!r} is not a number") from None


def _size(text: str) -> Size:
    """4x4 → (4, 4)."""
    if not re.fullmatch(r"\d+([x×,]\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like 4x4")
    return tuple(int(size) for size in re.split("[x×,]", text))


def _picture(args: argparse.Namespace) -> Size:
    """HxW, CxHxW or NxCxHxW → (N, C, H, W)."""
    if not 2 <= len(args.input) <= 4:
        raise ValueError(f"--input {sizes(args.input)}: give HxW, CxHxW or NxCxHxW")
    return _positive("--input", (1,) * (4 - len(args.input)) + args.input)


def _positive(option: str, size: Size) -> Size:
    if min(size) < 1:
        raise ValueError(f"{option} {sizes(size)}: every size must be at least 1")
    return size


def _pair(option: str, size: Size) -> tuple[int, int]:
    if len(size) > 2:
        raise ValueError(f"{option} {sizes(size)}: give one number, or one for each of rows and columns")
    return size[0], size[-1]


def _conv_options(parser: argparse.ArgumentParser, stride: int = 1) -> None:
    parser.add_argument("--kernel", type=_size, default=(3, 3), metavar="SIZE", help="default 3x3")
    parser.add_argument("--out-channels", type=int, metavar="N", help="default: the number of groups")
    parser.add_argument("--stride", type=_size, default=(stride,), metavar="SIZE", help=f"default {stride}")
    parser.add_argument("--padding", type=_size, default=(0,), metavar="SIZE", help="default 0")
    parser.add_argument("--dilation", type=_size, default=(1,), metavar="SIZE", help="default 1")
    parser.add_argument("--groups", type=int, default=1, help="default 1")
    _weight_options(parser)


def _conv_transpose_options(parser: argparse.ArgumentParser) -> None:
    _conv_options(parser, stride=2)
    parser.add_argument("--output-padding", type=_size, default=(0,), metavar="SIZE", help="default 0")


def _weight_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weight-values", nargs="+", metavar="NUMBER", help="in the order of memory")
    parser.add_argument("--bias-values", nargs="+", metavar="NUMBER", help="one for each output channel or feature")
    parser.add_argument("--no-bias", action="store_true", help="leave the bias out")


def _pool_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernel", type=_size, default=(2, 2), metavar="SIZE", help="default 2x2")
    parser.add_argument("--stride", type=_size, metavar="SIZE", help="default: the kernel's size")
    parser.add_argument("--padding", type=_size, default=(0,), metavar="SIZE", help="default 0")
    parser.add_argument("--ceil-mode", action="store_true", help="a last window may hang over the end")


def _max_pool_options(parser: argparse.ArgumentParser) -> None:
    _pool_options(parser)
    parser.add_argument("--dilation", type=_size, default=(1,), metavar="SIZE", help="default 1")


def _avg_pool_options(parser: argparse.ArgumentParser) -> None:
    _pool_options(parser)
    parser.add_argument("--exclude-padding", action="store_true", help="divide by the real cells alone")


def _linear_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out-features", type=int, default=2, metavar="N", help="default 2")
    _weight_options(parser)


def _cross_entropy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--targets", nargs="+", type=int, metavar="CLASS", help="the right class of each sample")


def _batch_norm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--eps", type=float, default=1e-5, help="default 1e-5")
    parser.add_argument("--weight-values", nargs="+", metavar="NUMBER", help="γ; default 1")
    parser.add_argument("--bias-values", nargs="+", metavar="NUMBER", help="β; default 0")


def _layer_norm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--eps", type=float, default=1e-5, help="default 1e-5")
    parser.add_argument("--weight-values", nargs="+", metavar="NUMBER", help="γ; drawn if not given")
    parser.add_argument("--bias-values", nargs="+", metavar="NUMBER", help="β; drawn if not given")


def _embedding_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table", type=_size, default=(4, 3), metavar="SIZE", help="VxD, rows by features; default 4x3"
    )
    parser.add_argument("--table-values", nargs="+", metavar="NUMBER", help="in the order of memory")


def _attention_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, default=3, metavar="N", help="how many keys and values; default 3")
    parser.add_argument("--key-values", nargs="+", metavar="NUMBER", help="in the order of memory")
    parser.add_argument("--value-values", nargs="+", metavar="NUMBER", help="in the order of memory")


def _lstm_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hidden", type=int, default=2, metavar="N", help="hidden units; default 2")
    parser.add_argument("--h-values", nargs="+", metavar="NUMBER", help="the state h before the step")
    parser.add_argument("--c-values", nargs="+", metavar="NUMBER", help="the state c before the step")
    parser.add_argument(
        "--weight-values", nargs="+", metavar="NUMBER", help="rows of i, f, g, o; columns of x, then of h"
    )
    parser.add_argument("--bias-values", nargs="+", metavar="NUMBER", help="of i, f, g, o")


def _no_options(parser: argparse.ArgumentParser) -> None:
    """ReLU and softmax have nothing to choose."""


def _conv2d(args: argparse.Namespace) -> Explanation:
    shape, numbers = _picture(args), _Numbers(args.seed)
    if args.groups < 1 or shape[1] % args.groups:
        raise ValueError(f"--groups {args.groups}: the {shape[1]} input channels must divide into as many groups")
    out_channels = args.groups if args.out_channels is None else args.out_channels
    weight_shape = _positive("--kernel", (out_channels, shape[1] // args.groups, *_pair("--kernel", args.kernel)))
    return layers.conv2d(*_operands(args, numbers, shape, weight_shape, out_channels), **_conv_settings(args, numbers))


def _conv_transpose2d(args: argparse.Namespace) -> Explanation:
    shape, numbers = _picture(args), _Numbers(args.seed)
    out_channels = args.groups if args.out_channels is None else args.out_channels
    if args.groups < 1 or shape[1] % args.groups or out_channels % args.groups:
        raise ValueError(
            f"--groups {args.groups}: {shape[1]} input and {out_channels} output channels do not divide so"
        )
    weight_shape = _positive("--kernel", (shape[1], out_channels // args.groups, *_pair("--kernel", args.kernel)))
    return layers.conv_transpose2d(
        *_operands(args, numbers, shape, weight_shape, out_channels),
        output_padding=_pair("--output-padding", args.output_padding),
        **_conv_settings(args, numbers),
    )


def _operands(
    args: argparse.Namespace, numbers: _Numbers, shape: Size, weight_shape: Size, outputs: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias, which is left out if that is asked for."""
    if args.no_bias and args.bias_values is not None:
        raise ValueError("--no-bias and --bias-values: give one of the two")
    return (
        numbers("--input-values", args.input_values, shape, 0, 3),
        numbers("--weight-values", args.weight_values, weight_shape, -1, 1),
        None if args.no_bias else numbers("--bias-values", args.bias_values, (outputs,), 1, 3),
    )


def _conv_settings(args: argparse.Namespace, numbers: _Numbers) -> dict[str, Any]:
    return {
        "stride": _pair("--stride", args.stride),
        "padding": _pair("--padding", args.padding),
        "dilation": _pair("--dilation", args.dilation),
        "groups": args.groups,
        "grad_output": numbers.grad(args),
    }


def _max_pool2d(args: argparse.Namespace) -> Explanation:
    dilation = _pair("--dilation", args.dilation)
    return _pool(args, layers.max_pool2d, dilation=dilation)


def _avg_pool2d(args: argparse.Namespace) -> Explanation:
    return _pool(args, layers.avg_pool2d, count_include_pad=not args.exclude_padding)


def _pool(args: argparse.Namespace, layer: Callable[..., Explanation], **options: Any) -> Explanation:
    numbers, kernel_size = _Numbers(args.seed), _pair("--kernel", args.kernel)
    return layer(
        numbers("--input-values", args.input_values, _picture(args), -4, 9),
        kernel_size=_positive("--kernel", kernel_size),
        stride=kernel_size if args.stride is None else _pair("--stride", args.stride),
        padding=_pair("--padding", args.padding),
        ceil_mode=args.ceil_mode,
        grad_output=numbers.grad(args),
        **options,
    )


def _linear(args: argparse.Namespace) -> Explanation:
    numbers = _Numbers(args.seed)
    batch, features = _table(args, "NxI, samples by features")
    out_features = _positive("--out-features", (args.out_features,))[0]
    operands = _operands(args, numbers, (batch, features), (out_features, features), out_features)
    return layers.linear(*operands, grad_output=numbers.grad(args))


def _relu(args: argparse.Namespace) -> Explanation:
    numbers = _Numbers(args.seed)
    input = numbers("--input-values", args.input_values, _positive("--input", args.input), -5, 5)
    return layers.relu(input, grad_output=numbers.grad(args))


def _cross_entropy(args: argparse.Namespace) -> Explanation:
    numbers = _Numbers(args.seed)
    batch, classes = _table(args, "NxC, samples by classes")
    targets = args.targets or torch.randint(classes, (batch,), generator=numbers.generator).tolist()
    if len(targets) != batch or not all(0 <= target < classes for target in targets):
        raise ValueError(f"--targets {' '.join(map(str, targets))}: give {batch} classes from 0 to {classes - 1}")
    input = numbers("--input-values", args.input_values, (batch, classes), -1, 3)
    return layers.cross_entropy(input, torch.tensor(targets))


def _batch_norm(args: argparse.Namespace) -> Explanation:
    numbers, shape = _Numbers(args.seed), _positive("--input", args.input)
    if len(shape) not in (2, 4):
        raise ValueError(f"--input {sizes(shape)}: give NxC or NxCxHxW")
    return layers.batch_norm(
        numbers("--input-values", args.input_values, shape, 0, 5),
        numbers("--weight-values", args.weight_values, (shape[1],), 1, 1),
        numbers("--bias-values", args.bias_values, (shape[1],), 0, 0),
        eps=args.eps,
        grad_output=numbers.grad(args),
    )


def _softmax(args: argparse.Namespace) -> Explanation:
    numbers = _Numbers(args.seed)
    input = numbers("--input-values", args.input_values, _table(args, "NxC, samples by classes"), -1, 3)
    return layers.softmax(input, grad_output=numbers.grad(args))


def _layer_norm(args: argparse.Namespace) -> Explanation:
    numbers, (batch, features) = _Numbers(args.seed), _table(args, "NxD, samples by features")
    return layers.layer_norm(
        numbers("--input-values", args.input_values, (batch, features), 0, 5),
        numbers("--weight-values", args.weight_values, (features,), 1, 2),
        numbers("--bias-values", args.bias_values, (features,), -1, 1),
        eps=args.eps,
        grad_output=numbers.grad(args),
    )


def _embedding(args: argparse.Namespace) -> Explanation:
    numbers = _Numbers(args.seed)
    if len(args.input) != 1 or len(args.table) != 2:
        raise ValueError(f"--input {sizes(args.input)}, --table {sizes(args.table)}: give the tokens' number, and VxD")
    tokens, (rows, features) = _positive("--input", args.input), _positive("--table", args.table)
    index = numbers("--input-values", args.input_values, tokens, 0, rows - 1)
    if not all(number in range(rows) for number in index.tolist()):
        raise ValueError(f"--input-values: the table has the rows 0 to {rows - 1}")
    table = numbers("--table-values", args.table_values, (rows, features), -3, 3)
    return layers.embedding(index.long(), table, grad_output=numbers.grad(args))


def _attention(args: argparse.Namespace) -> Explanation:
    numbers, (queries, features) = _Numbers(args.seed), _table(args, "TxD, queries by features")
    keys = _positive("--keys", (args.keys,))[0]
    return layers.attention(
        numbers("--input-values", args.input_values, (queries, features), -2, 2),
        numbers("--key-values", args.key_values, (keys, features), -2, 2),
        numbers("--value-values", args.value_values, (keys, features), 0, 5),
        grad_output=numbers.grad(args),
    )


def _lstm(args: argparse.Namespace) -> Explanation:
    numbers, (batch, features) = _Numbers(args.seed), _table(args, "NxI, samples by features")
    hidden = _positive("--hidden", (args.hidden,))[0]
    return layers.lstm(
        numbers("--input-values", args.input_values, (batch, features), -2, 2),
        numbers("--h-values", args.h_values, (batch, hidden), -1, 1),
        numbers("--c-values", args.c_values, (batch, hidden), -1, 2),
        numbers("--weight-values", args.weight_values, (4 * hidden, features + hidden), -1, 1),
        numbers("--bias-values", args.bias_values, (4 * hidden,), -1, 1),
        grad_output=numbers.grad(args),
    )


def _table(args: argparse.Namespace, form: str) -> tuple[int, int]:
    if len(args.input) != 2:
        raise ValueError(f"--input {sizes(args.input)}: give {form}")
    _positive("--input", args.input)
    return args.input[0], args.input[1]


# name: what it is, the default --input, its own options, how its explanation is built
LAYERS: dict[str, tuple[str, Size, Callable[..., None], Callable[..., Explanation]]] = {
    "conv2d": ("a kernel slides over the input", (4, 4), _conv_options, _conv2d),
    "conv_transpose2d": (
        "every input spreads a kernel over the output",
        (2, 2),
        _conv_transpose_options,
        _conv_transpose2d,
    ),
    "max_pool2d": ("the largest of each window", (4, 4), _max_pool_options, _max_pool2d),
    "avg_pool2d": ("the mean of each window", (4, 4), _avg_pool_options, _avg_pool2d),
    "linear": ("every input into every output", (2, 3), _linear_options, _linear),
    "relu": ("what is negative becomes 0", (3, 4), _no_options, _relu),
    "softmax": ("scores become probabilities", (2, 3), _no_options, _softmax),
    "cross_entropy": ("softmax and the loss of a classifier", (2, 3), _cross_entropy_options, _cross_entropy),
    "batch_norm": ("each channel to mean 0 and variance 1", (4, 2), _batch_norm_options, _batch_norm),
    "layer_norm": ("each sample to mean 0 and variance 1", (2, 4), _layer_norm_options, _layer_norm),
    "embedding": ("each token fetches a row of a table", (4,), _embedding_options, _embedding),
    "attention": ("each query takes the mean of the values that answer it", (2, 2), _attention_options, _attention),
    "lstm": ("one step of an LSTM, and the way back through its gates", (1, 2), _lstm_options, _lstm),
}
