"""How losses go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchfromscratch.checking.formulas import sigmoid, softmax
from torchfromscratch.checking.mistakes.row import Mistake, NotApplicableError, forward, gradient
from torchfromscratch.checking.truth import Truth


def one_hot(t: Truth) -> Tensor:
    """Y: 1 for the right class, in the input's shape."""
    classes = torch.arange(t.input.shape[1]).view(1, -1, *[1] * (t.input.dim() - 2))
    return (classes == t.target.unsqueeze(1)).double()


def probabilities(t: Truth) -> Tensor:
    """The softmax over the classes."""
    return softmax(t.input.detach(), 1)


def over_samples(t: Truth, value: Tensor) -> Tensor:
    """A wrong p − Y, multiplied with dL/dy and divided as the reduction says, where no option changes it further."""
    plain = t.weight is None and t.arguments.get("label_smoothing", 0.0) == 0 and not (t.target == t.ignore_index).any()
    if not plain:
        raise NotApplicableError
    if t.reduction == "none":
        return t.g.unsqueeze(1) * value
    return t.g * value / (t.target.numel() if t.reduction == "mean" else 1)


def divide_sum(t: Truth, divisor: float, of: str = "mean") -> Tensor:
    """The sum of the losses over something else, where the reduction is `of`."""
    if t.reduction != of:
        raise NotApplicableError
    return t.output(reduction="sum") / divisor


def other_reductions(explanation: str) -> Iterator[Mistake]:
    """The gradient of another reduction than the loss has."""
    for sentence, of, other, divisor in (
        ("1/N is missing in the gradient: the loss is a mean.", "mean", "sum", lambda t: 1),
        ("The gradient is divided by the batch alone.", "mean", "sum", lambda t: t.input.shape[0]),
        ("The gradient is divided by N, but the loss is a sum.", "sum", "mean", lambda t: 1),
    ):

        def compute(
            t: Truth, what: str, of: str = of, other: str = other, divisor: Callable[[Truth], int] = divisor
        ) -> Tensor | None:
            if t.reduction != of or not what.endswith(".grad"):
                return None
            return t.gradient(what.removesuffix(".grad"), reduction=other) / divisor(t)

        yield Mistake(sentence, explanation, compute)


def reductions(explanation: str) -> tuple[Mistake, ...]:
    """Means for sums and sums for means."""
    return (
        *other_reductions(explanation),
        forward("The sum in place of the mean: 1/N is missing.", explanation, lambda t: divide_sum(t, 1)),
        forward("The mean in place of the sum.", explanation, lambda t: divide_sum(t, t.target.numel(), "sum")),
        forward(
            "The mean is over the batch alone, not over all elements.",
            explanation,
            lambda t: divide_sum(t, t.input.shape[0]),
        ),
        forward("The mean is over N − 1.", explanation, lambda t: divide_sum(t, t.target.numel() - 1)),
        forward(
            "The reduction is forgotten: it is always the mean.", explanation, lambda t: t.output(reduction="mean")
        ),
        forward("The reduction is forgotten: it is always the sum.", explanation, lambda t: t.output(reduction="sum")),
        forward("The sign of the loss is wrong.", explanation, lambda t: -t.output()),
        forward("The weight is forgotten.", explanation, lambda t: t.output(weight=None)),
    )


def of_classes(explanation: str) -> tuple[Mistake, ...]:
    """Means over something else than the weights of the right classes."""
    return (
        forward("The mean is over the classes, too.", explanation, lambda t: divide_sum(t, t.input.numel())),
        forward(
            "The mean is over the classes in place of the samples.",
            explanation,
            lambda t: divide_sum(t, t.input.shape[1]),
        ),
        forward(
            "The weighted mean is over the number of elements, not over their weights.",
            explanation,
            lambda t: divide_sum(t, (t.target != t.arguments.get("ignore_index")).sum()),
        ),
    )


_CROSS = "dL/dx = (p − Y) / N with p = softmax(x), Y one-hot and the N of the mean, times dL/dy."


def _nll(t: Truth, x: Tensor) -> Tensor:
    """The losses of these scores, where no option changes them further."""
    over_samples(t, x)
    loss = -(x * one_hot(t)).sum(1)
    return loss if t.reduction == "none" else loss.mean() if t.reduction == "mean" else loss.sum()


def double_mean(t: Truth) -> Tensor:
    """dL/dx of the mean, divided by the number of samples once more."""
    if t.reduction != "mean":
        raise NotApplicableError
    return t.gradient("input") / t.target.numel()


CROSS_ENTROPY = (
    *[
        gradient("input", sentence, _CROSS, value)
        for sentence, value in (
            ("Without softmax: x − Y.", lambda t: over_samples(t, t.input.detach() - one_hot(t))),
            ("−Y is missing: the gradient is the softmax.", lambda t: over_samples(t, probabilities(t))),
            ("The softmax is missing: the gradient is −Y.", lambda t: over_samples(t, -one_hot(t))),
            (
                "The gradient is −Y / p: that of the logarithm alone, not of the softmax before it.",
                lambda t: over_samples(t, -one_hot(t) / probabilities(t)),
            ),
            (
                "−1 only where the class is right, the rest is 0.",
                lambda t: over_samples(t, (probabilities(t) - 1) * one_hot(t)),
            ),
            ("The sigmoid in place of the softmax.", lambda t: over_samples(t, sigmoid(t.input.detach()) - one_hot(t))),
            ("log p − Y in place of p − Y.", lambda t: over_samples(t, probabilities(t).log() - one_hot(t))),
            ("The sign of Y is wrong: p + Y.", lambda t: over_samples(t, probabilities(t) + one_hot(t))),
            ("p · (1 − p) in place of p − Y.", lambda t: over_samples(t, probabilities(t) * (1 - probabilities(t)))),
            (
                "exp(x) − Y: the softmax is not divided by its sum.",
                lambda t: over_samples(t, t.input.detach().exp() - one_hot(t)),
            ),
            (
                "The softmax is over the batch, not over the classes.",
                lambda t: over_samples(t, softmax(t.input.detach(), 0) - one_hot(t)),
            ),
            (
                "The softmax is over the last dimension, not over the classes.",
                lambda t: over_samples(t, softmax(t.input.detach(), -1) - one_hot(t)),
            ),
            ("1/N is there twice.", double_mean),
            ("ignore_index is forgotten.", lambda t: t.gradient("input", ignore_index=-100)),
            ("label_smoothing is forgotten.", lambda t: t.gradient("input", label_smoothing=0.0)),
            ("The weight is forgotten.", lambda t: t.gradient("input", weight=None)),
        )
    ],
    *reductions(_CROSS),
    *of_classes(_CROSS),
    forward(
        "ignore_index is forgotten.",
        "What is ignored has neither a loss nor a gradient, nor counts for the mean.",
        lambda t: t.output(ignore_index=-100),
    ),
    forward(
        "label_smoothing is forgotten.", "The target is (1 − α) Y + α / C.", lambda t: t.output(label_smoothing=0.0)
    ),
    forward(
        "The softmax is forgotten: the loss is −x[t].",
        _CROSS,
        lambda t: _nll(t, t.input),
    ),
    forward(
        "The logarithm is forgotten: the loss is −softmax(x)[t].",
        _CROSS,
        lambda t: _nll(t, softmax(t.input, 1)),
    ),
    forward(
        "The softmax is over the batch, not over the classes.",
        _CROSS,
        lambda t: _nll(t, t.input - t.input.logsumexp([0, *range(2, t.input.dim())], keepdim=True)),
    ),
    forward(
        "The softmax is taken twice.",
        _CROSS,
        lambda t: t.output(input=softmax(t.input, 1)),
    ),
)


_NLL = "dL/dx is −w[t] / Σ w at the right class, and 0 elsewhere."
NLL = (
    *reductions(_NLL),
    *of_classes(_NLL),
    forward("ignore_index is forgotten.", _NLL, lambda t: t.output(ignore_index=-100)),
)


def elementwise_loss(t: Truth, value: Tensor) -> Tensor:
    """A wrong derivative of each loss, weighted, multiplied with dL/dy and divided as the reduction says."""
    value = value if t.weight is None else value * t.weight
    if t.reduction != "mean":
        return t.g * value
    is_weighted = t.layer.name == "mse_loss" and t.weight is not None
    return t.g * value / (t.weight.sum() if is_weighted else value.numel())


def log_of(t: Truth, value: Tensor) -> Tensor:
    """As `elementwise_loss`, where there is no pos_weight."""
    if t.arguments.get("pos_weight") is not None:
        raise NotApplicableError
    return elementwise_loss(t, value)


def elementwise_mean(t: Truth, losses: Tensor) -> Tensor:
    """Reduced as the loss is."""
    if t.weight is not None:
        raise NotApplicableError
    return losses if t.reduction == "none" else losses.mean() if t.reduction == "mean" else losses.sum()


def _positive_part(t: Truth) -> Tensor:
    return elementwise_mean(t, -t.target * t.input.log())


_BINARY = "dL/dx = (x − t) / (x (1 − x)), over N for the mean, times dL/dy."
BINARY = (
    *[
        gradient("input", sentence, _BINARY, lambda t, value=value: log_of(t, value(t.input.detach(), t.target)))
        for sentence, value in (
            ("The gradient is x − t: that of binary cross-entropy with logits.", lambda x, y: x - y),
            ("Only the positive part: −t / x.", lambda x, y: -y / x),
            ("Only the negative part: (1 − t) / (1 − x).", lambda x, y: (1 - y) / (1 - x)),
            (
                "The sign between both parts is wrong: −t / x − (1 − t) / (1 − x).",
                lambda x, y: -y / x - (1 - y) / (1 - x),
            ),
            (
                "The sign between both parts is wrong: t / x + (1 − t) / (1 − x).",
                lambda x, y: y / x + (1 - y) / (1 - x),
            ),
            ("The derivative of log(1 − x) lacks its inner −1.", lambda x, y: -y / x - (1 - y) / (1 - x)),
            ("The denominator x (1 − x) is a factor.", lambda x, y: (x - y) * x * (1 - x)),
        )
    ],
    *reductions(_BINARY),
    forward("The negative part is forgotten: −t log x.", _BINARY, _positive_part),
)
_LOGITS = "dL/dx = σ(x) − t, over N for the mean, times dL/dy."
LOGITS = (
    *[
        gradient("input", sentence, _LOGITS, lambda t, value=value: log_of(t, value(t.input.detach(), t.target)))
        for sentence, value in (
            ("Without the sigmoid: x − t.", lambda x, y: x - y),
            ("−t is missing: the gradient is σ(x).", lambda x, y: sigmoid(x)),
            (
                "The sigmoid's derivative is there twice: (σ(x) − t) σ(x) (1 − σ(x)).",
                lambda x, y: (sigmoid(x) - y) * sigmoid(x) * sigmoid(-x),
            ),
            (
                "The gradient is that of the probabilities, without the sigmoid's: (p − t) / (p (1 − p)).",
                lambda x, y: (sigmoid(x) - y) / (sigmoid(x) * sigmoid(-x)),
            ),
            ("The sign of t is wrong: σ(x) + t.", lambda x, y: sigmoid(x) + y),
            ("Only the positive part: t (σ(x) − 1).", lambda x, y: y * (sigmoid(x) - 1)),
        )
    ],
    *reductions(_LOGITS),
    gradient(
        "input",
        "pos_weight is forgotten.",
        "pos_weight multiplies the part of t.",
        lambda t: t.gradient("input", pos_weight=None),
    ),
    forward("pos_weight is forgotten.", "pos_weight multiplies the part of t.", lambda t: t.output(pos_weight=None)),
)
_MSE = "dL/dx = 2 (x − t), over the number of elements for the mean, times dL/dy."
MSE = (
    *[
        gradient("input", sentence, _MSE, lambda t, value=value: elementwise_loss(t, value(t.input.detach(), t.target)))
        for sentence, value in (
            ("The factor 2 is missing: x − t.", lambda x, y: x - y),
            ("The sign is wrong: 2 (t − x).", lambda x, y: 2 * (y - x)),
            ("The factor 2 is missing, and the sign is wrong: t − x.", lambda x, y: y - x),
            ("The sign of x − t alone: that of the absolute error.", lambda x, y: (x - y).sign()),
            ("2 x: the target is missing.", lambda x, y: 2 * x),
            ("(x − t)²: not differentiated.", lambda x, y: (x - y) ** 2),
            ("2 |x − t|: the sign is lost.", lambda x, y: 2 * (x - y).abs()),
        )
    ],
    *reductions(_MSE),
    forward(
        "Half of the squared error.",
        "The squared error has no factor ½ here: dL/dx has the factor 2.",
        lambda t: t.output() / 2,
    ),
    forward(
        "The absolute error in place of the squared one.",
        _MSE,
        lambda t: elementwise_mean(t, (t.input - t.target).abs()),
    ),
    forward("The root of the squared error.", _MSE, lambda t: t.output().sqrt()),
)
