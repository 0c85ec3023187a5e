"""Every function on works of any size: what is called must not grow with them, and time no faster than torch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.cases.recurrent import functions, weights


@dataclass(frozen=True)
class Growing:
    """A way of calling a function, for any namespace `F`, on about n elements.

    `shapes(n)` are those of the tensors that require gradients, and `call` takes them behind `F`.
    """

    function: str
    how: str
    shapes: Callable[[int], tuple[tuple[int, ...], ...]]
    call: Callable[..., Any]
    low: float = -3.0  # range of the random elements
    high: float = 3.0

    @property
    def name(self) -> str:
        return f"{self.function} {self.how}"

    def inputs(self, n: int) -> list[Tensor]:
        """Random tensors for about n elements."""
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.empty(shape).uniform_(self.low, self.high, generator=generator) for shape in self.shapes(n)]
        return [tensor.requires_grad_() for tensor in tensors]


def flat(n: int) -> tuple[tuple[int, ...], ...]:
    return ((n,),)


def pair(n: int) -> tuple[tuple[int, ...], ...]:
    return ((n,), (n,))


def side(n: int, dims: int = 2) -> int:
    return round(n ** (1 / dims))


def signal(n: int) -> tuple[tuple[int, ...], ...]:
    return ((1, 1, n),)


def plane(n: int) -> tuple[tuple[int, ...], ...]:
    return ((1, 1, side(n), side(n)),)


def volume(n: int) -> tuple[tuple[int, ...], ...]:
    return ((1, 1, *[side(n, 3)] * 3),)


def batch(*shape: int) -> Callable[[int], tuple[tuple[int, ...], ...]]:
    """Samples of one shape, as many as make n elements."""
    return lambda n: ((max(1, n // math.prod(shape)), *shape),)


def with_parameters(first: Callable[[int], tuple[tuple[int, ...], ...]], *parameters: tuple[int, ...]) -> Any:
    return lambda n: (*first(n), *parameters)


def classes(x: Tensor, count: int) -> Tensor:
    return torch.arange(x.shape[0]) % count


def of_name(name: str, shapes: Any, how: str = "flat", *args: Any, **options: Any) -> Growing:
    """One that takes its tensors first and its options then."""
    return Growing(name, how, shapes, lambda F, *tensors: getattr(F, name)(*tensors, *args, **options))


ACTIVATIONS = (
    *("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish"),
    *("relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"),
)
LOSSES = (
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "huber_loss", "kl_div", "l1_loss", "mse_loss"),
    "smooth_l1_loss",
)


def sequence(name: str, gates: int, states: int) -> Growing:
    """Ten steps of a wider and wider batch."""

    def call(F: Any, x: Tensor, *tensors: Tensor) -> Any:
        hx = tensors[:states] if states > 1 else tensors[0]
        return getattr(functions(F), name)(x, hx, tensors[states:], True, 1, 0.0, True, False, False)

    def shapes(n: int) -> tuple[tuple[int, ...], ...]:
        samples = max(1, n // 320)
        return ((10, samples, 32), *[(1, samples, 32)] * states, *weights(gates, 32, 32))

    return Growing(name, "10 steps, 32 features", shapes, call)


def cell(name: str, gates: int, states: int) -> Growing:
    def call(F: Any, x: Tensor, *tensors: Tensor) -> Any:
        hx = tensors[:states] if states > 1 else tensors[0]
        return getattr(functions(F), name)(x, hx, *tensors[states:])

    def shapes(n: int) -> tuple[tuple[int, ...], ...]:
        samples = max(1, n // 32)
        return ((samples, 32), *[(samples, 32)] * states, *weights(gates, 32, 32))

    return Growing(name, "32 features", shapes, call)


def multi_head(F: Any, x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor) -> Any:
    width = x.shape[-1]
    return F.multi_head_attention_forward(x, x, x, width, 4, w_in, b_in, None, None, False, 0.0, w_out, b_out)[0]


def poolings(dims: int) -> list[Growing]:
    """One channel of growing size, many of a fixed one, and windows and outputs that grow with it."""
    one = {1: signal, 2: plane, 3: volume}[dims]
    many = batch(*{1: (64, 64), 2: (16, 16, 16), 3: (8, 8, 8, 8)}[dims])
    found = []
    for kind in ("avg", "max"):
        name, adaptive = f"{kind}_pool{dims}d", f"adaptive_{kind}_pool{dims}d"
        for how, shapes in (("one channel", one), ("many channels", many)):
            found += [
                of_name(name, shapes, f"{how}, 2 / 2", 2),
                of_name(name, shapes, f"{how}, 3 / 2, padding 1", 3, 2, 1),
                of_name(name, shapes, f"{how}, 3 / 1, padding 1", 3, 1, 1),
                of_name(adaptive, shapes, f"{how}, to 1", 1),
                of_name(adaptive, shapes, f"{how}, to 7", 7),
            ]
        found += [
            of_size(name, one, "window of a tenth", lambda size: (size // 10,)),
            of_size(name, one, "window of a hundredth / 1", lambda size: (max(2, size // 100), 1)),
            of_size(adaptive, one, "to a third", lambda size: (size // 3,)),
            of_size(adaptive, one, "to 0.7", lambda size: (size * 7 // 10,)),
        ]
        if dims < 3:
            found.append(of_size(adaptive, one, "to twice", lambda size: (size * 2,)))
        if kind == "max":
            for with_indices in (f"{name}_with_indices", f"{adaptive}_with_indices"):
                found.append(of_name(with_indices, one, "one channel, 3", 3))
                found.append(of_name(with_indices, many, "many channels, 3", 3))
    return found


def of_size(name: str, shapes: Any, how: str, options: Callable[[int], tuple[int, ...]]) -> Growing:
    """One whose options grow with the size of its input."""
    return Growing(name, how, shapes, lambda F, x: getattr(F, name)(x, *options(x.shape[-1])))


def convolutions(dims: int) -> list[Growing]:
    size, channels = {1: (64,), 2: (16, 16), 3: (8, 8, 8)}[dims], 16
    many = with_parameters(batch(channels, *size), (channels, channels, *[3] * dims), (channels,))
    one = {1: signal, 2: plane, 3: volume}[dims]
    depthwise = with_parameters(batch(channels, *size), (channels, 1, *[3] * dims), (channels,))
    deconvolution = f"conv_transpose{dims}d"
    return [
        of_name(f"conv{dims}d", many, "3, padding 1", padding=1),
        of_name(f"conv{dims}d", many, "3 / 2", stride=2),
        of_name(f"conv{dims}d", with_parameters(one, (1, 1, *[3] * dims)), "one channel, 3"),
        of_name(f"conv{dims}d", depthwise, "depthwise, 3, padding 1", padding=1, groups=channels),
        of_name(deconvolution, many, "3, padding 1", padding=1),
        of_name(deconvolution, many, "3 / 2", stride=2),
        of_name(deconvolution, with_parameters(one, (1, 1, *[3] * dims)), "one channel, 3"),
        of_name(deconvolution, depthwise, "depthwise, 3, padding 1", padding=1, groups=channels),
    ]


def wide_depthwise(length: int) -> Growing:
    """1×length on eight channels of more and more rows of 512."""
    return Growing(
        "conv2d",
        f"depthwise, 1×{length}",
        lambda n: ((1, 8, max(1, n // 4096), 512), (8, 1, 1, length)),
        lambda F, x, w: F.conv2d(x, w, padding=(0, length // 2), groups=8),
    )


def signs(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0]) % 2 * 2 - 1


def class_sets(x: Tensor) -> Tensor:
    """For each sample the class 0 alone."""
    return torch.full(x.shape, -1).index_fill(1, torch.tensor([0]), 0)


def unpooling(dims: int) -> Growing:
    """To twice the size, the elements in their order at the first positions."""

    def call(F: Any, x: Tensor) -> Any:
        size = x.shape[2:]
        return getattr(F, f"max_unpool{dims}d")(x, torch.arange(math.prod(size)).view(size).expand_as(x), 2)

    return Growing(f"max_unpool{dims}d", "2 / 2", batch(16, *{1: (64,), 2: (8, 8), 3: (4, 4, 4)}[dims]), call)


def fractional(dims: int, name: str) -> Growing:
    size = {2: (16, 16), 3: (8, 8, 8)}[dims]
    return of_name(name, batch(16, *size), "2, to a half", 2, output_size=size[0] // 2)


def ctc(F: Any, x: Tensor) -> Any:
    samples = x.shape[1]
    targets = torch.arange(samples * 3).view(samples, 3) % 9 + 1
    return F.ctc_loss(x, targets, torch.full((samples,), 10), torch.full((samples,), 3))


PICTURES = batch(16, 16, 16)
LINES = batch(100)


def lines(count: int) -> Callable[[int], tuple[tuple[int, ...], ...]]:
    return lambda n: LINES(n) * count


DISTANCES_AND_MARGINS = [
    of_name("bilinear", lambda n: (*batch(20)(n) * 2, (10, 20, 20), (10,)), "20 × 20 to 10"),
    of_name("cosine_similarity", lines(2), "rows of 100"),
    of_name("pairwise_distance", lines(2), "rows of 100"),
    of_name("pdist", lambda n: ((side(2 * n), 3),), "all pairs"),
    of_name("normalize", LINES, "rows of 100"),
    of_name("gumbel_softmax", LINES, "rows of 100"),
    Growing("one_hot", "10 classes", flat, lambda F, x: x * F.one_hot(classes(x, 10), 10).T),
    Growing("cosine_embedding_loss", "rows of 100", lines(2), lambda F, x, y: F.cosine_embedding_loss(x, y, signs(x))),
    Growing("hinge_embedding_loss", "flat", flat, lambda F, x: F.hinge_embedding_loss(x, signs(x))),
    Growing("margin_ranking_loss", "flat", pair, lambda F, x, y: F.margin_ranking_loss(x, y, signs(x))),
    Growing("soft_margin_loss", "flat", flat, lambda F, x: F.soft_margin_loss(x, signs(x))),
    Growing("multi_margin_loss", "100 classes", LINES, lambda F, x: F.multi_margin_loss(x, classes(x, 100))),
    Growing("multilabel_margin_loss", "100 classes", LINES, lambda F, x: F.multilabel_margin_loss(x, class_sets(x))),
    Growing(
        "multilabel_soft_margin_loss",
        "100 classes",
        LINES,
        lambda F, x: F.multilabel_soft_margin_loss(x, class_sets(x) + 1.0),
    ),
    *[of_name(name, lines(3), "rows of 100") for name in ("triplet_margin_loss", "triplet_margin_with_distance_loss")],
    Growing("gaussian_nll_loss", "flat", lambda n: ((n,),) * 3, lambda F, *tensors: F.gaussian_nll_loss(*tensors), 0.1),
    of_name("poisson_nll_loss", pair),
    Growing("ctc_loss", "10 steps, 10 classes", lambda n: ((10, max(1, n // 100), 10),), ctc, high=0.0),
]

SHUFFLES_AND_SAMPLES = [
    *[of_name(name, PICTURES, "4 groups", 4) for name in ("channel_shuffle", "native_channel_shuffle")],
    *[of_name(name, PICTURES, "by 2", 2) for name in ("pixel_shuffle", "pixel_unshuffle")],
    of_name("local_response_norm", PICTURES, "5 channels", 5),
    of_name("conv_tbc", lambda n: ((max(3, n // 64), 4, 16), (3, 16, 16), (16,)), "3, padding 1", 1),
    *[of_name(f"lp_pool{dims}d", batch(16, *[64 >> dims] * dims), "2 / 2", 2, 2) for dims in (1, 2, 3)],
    *[unpooling(dims) for dims in (1, 2, 3)],
    *[fractional(dims, f"fractional_max_pool{dims}d{indices}") for dims in (2, 3) for indices in ("", "_with_indices")],
    Growing(
        "affine_grid",
        "16 × 16",
        lambda n: ((max(1, n // 256), 2, 3),),
        lambda F, theta: F.affine_grid(theta, (theta.shape[0], 1, 16, 16), align_corners=False),
    ),
    *[
        of_name("grid_sample", lambda n: (*plane(n), (1, side(n), side(n), 2)), mode, mode=mode, align_corners=False)
        for mode in ("bilinear", "bicubic", "nearest")
    ],
    *[
        Growing(
            "embedding_bag",
            f"{mode} of bags of 4",
            LINES,
            lambda F, w, mode=mode: F.embedding_bag(
                torch.arange(w.shape[0]), w, torch.arange(0, w.shape[0], 4), mode=mode
            ),
        )
        for mode in ("sum", "mean", "max")
    ],
    *[of_name(name, plane, "× 2", scale_factor=2) for name in ("upsample", "upsample_nearest", "upsample_bilinear")],
]
if hasattr(torch.nn.functional, "linear_cross_entropy"):
    DISTANCES_AND_MARGINS.append(
        Growing(
            "linear_cross_entropy",
            "100 to 10",
            with_parameters(LINES, (10, 100)),
            lambda F, x, w: F.linear_cross_entropy(x, w, classes(x, 10)),
        )
    )

GROWING = [
    *[of_name(name, flat) for name in ACTIVATIONS],
    of_name("threshold", flat, "flat", 0.4, 20.0),
    of_name("rrelu", flat, "training", training=True),
    of_name("gelu", flat, "tanh", approximate="tanh"),
    of_name("glu", flat),
    of_name("prelu", with_parameters(PICTURES, (16,)), "16 channels"),
    of_name("prelu", with_parameters(flat, (1,)), "one weight"),
    *[of_name(name, PICTURES, "16 channels", 0.5, True) for name in ("alpha_dropout", "dropout", "dropout2d")],
    of_name("feature_alpha_dropout", PICTURES, "16 channels", 0.5, True),
    of_name("dropout1d", batch(16, 64), "16 channels", 0.5, True),
    of_name("dropout3d", batch(16, 4, 4, 4), "16 channels", 0.5, True),
    *[
        Growing(name, "flat", pair, lambda F, x, y, f=name: getattr(F, f)(x, y, reduction="sum"), 0.0, 1.0)
        for name in LOSSES
    ],
    *[
        Growing(name, f"{count} classes", batch(count), lambda F, x, f=name, c=count: getattr(F, f)(x, classes(x, c)))
        for name in ("cross_entropy", "nll_loss")
        for count in (10, 1000)
    ],
    of_name("cross_entropy", lambda n: (*LINES(n), *LINES(n)), "probabilities"),
    *[
        of_name(name, shapes, how, dim)
        for name in ("softmax", "log_softmax", "softmin")
        for how, shapes, dim in (("rows of 100", LINES, -1), ("one row", flat, 0), ("channels", PICTURES, 1))
    ],
    of_name("batch_norm", PICTURES, "16 channels", None, None, None, None, True),
    Growing("batch_norm", "100 features", LINES, lambda F, x: F.batch_norm(x, x.new_zeros(100), x.new_ones(100))),
    of_name("instance_norm", PICTURES, "16 channels"),
    of_name("layer_norm", LINES, "rows of 100", (100,)),
    of_name("rms_norm", LINES, "rows of 100", (100,)),
    of_name("group_norm", PICTURES, "4 groups of 16 channels", 4),
    Growing("linear", "100 to 100", with_parameters(LINES, (100, 100), (100,)), lambda F, x, w, b: F.linear(x, w, b)),
    Growing(
        "embedding",
        "rows of 100",
        LINES,
        lambda F, w: F.embedding(torch.arange(w.shape[0]) * 7 % w.shape[0], w),
    ),
    *[
        of_name("pad", shapes, f"{mode}, {how}", [1] * 2 * dims, mode=mode)
        for mode in ("constant", "reflect", "replicate", "circular")
        for how, shapes, dims in (("signal", signal, 1), ("plane", plane, 2), ("volume", volume, 3))
    ],
    of_name("unfold", PICTURES, "3", 3),
    of_name("unfold", plane, "one channel, 3", 3),
    Growing("fold", "2 / 2", batch(16 * 4, 64), lambda F, x: F.fold(x, (16, 16), 2, stride=2)),
    Growing("fold", "3 / 1", batch(16 * 9, 196), lambda F, x: F.fold(x, (16, 16), 3)),
    *[
        of_name("interpolate", shapes, f"{mode} × {factor}, {how}", mode=mode, scale_factor=factor)
        for mode, several in (
            ("nearest", (signal, plane, volume, PICTURES)),
            ("nearest-exact", (plane,)),
            ("linear", (signal,)),
            ("bilinear", (plane, PICTURES)),
            ("trilinear", (volume,)),
            ("bicubic", (plane, PICTURES)),
            ("area", (plane, PICTURES)),
        )
        for how, shapes in zip(("one channel", "channels", "volume", "pictures"), several, strict=False)
        for factor in (2, 0.3)
    ],
    *[
        of_name("interpolate", plane, f"{mode} × 0.3, antialias", mode=mode, scale_factor=0.3, antialias=True)
        for mode in ("bilinear", "bicubic")
    ],
    of_name("scaled_dot_product_attention", lambda n: ((max(1, n // 8192), 4, 64, 32),) * 3, "64 × 32"),
    Growing(
        "multi_head_attention_forward",
        "64 × 32",
        lambda n: ((64, max(1, n // 2048), 32), (96, 32), (96,), (32, 32), (32,)),
        multi_head,
    ),
    *[cell(*of) for of in (("rnn_tanh_cell", 1, 1), ("rnn_relu_cell", 1, 1), ("gru_cell", 3, 1), ("lstm_cell", 4, 2))],
    *[sequence(*of) for of in (("rnn_tanh", 1, 1), ("rnn_relu", 1, 1), ("gru", 3, 1), ("lstm", 4, 2))],
    *[found for dims in (1, 2, 3) for found in (*poolings(dims), *convolutions(dims))],
    *[wide_depthwise(length) for length in (17, 63, 255)],
    *DISTANCES_AND_MARGINS,
    *SHUFFLES_AND_SAMPLES,
]
