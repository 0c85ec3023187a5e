"""How activations, softmax, linear, embedding and dropout go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchfromscratch.checking.formulas import sigmoid, softmax
from torchfromscratch.checking.mistakes.row import Mistake, NotApplicableError, forward, gradient, square
from torchfromscratch.checking.truth import Truth


def slopes(explanation: str, rows: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]) -> tuple[Mistake, ...]:
    """Wrong dL/dx of an activation by sentence, each a function of dL/dy, x and y."""
    return tuple(
        gradient("input", sentence, explanation, lambda t, value=value: value(t.g, t.input.detach(), t.y.detach()))
        for sentence, value in rows.items()
    )


RELU = (
    *slopes(
        "dL/dx = dL/dy where x > 0, and 0 elsewhere: at 0, too.",
        {
            "The mask is x ≥ 0: at 0 the gradient is passed on.": lambda g, x, y: g * (x >= 0),
            "At 0 half of the gradient is passed on.": lambda g, x, y: g * ((x > 0) + 0.5 * (x == 0)),
            "The mask is missing: dL/dx is dL/dy.": lambda g, x, y: g,
            "The mask is that of dL/dy > 0, not of x > 0.": lambda g, x, y: g.clamp(min=0),
            "The mask is that of dL/dy > 0 as well as of x > 0.": lambda g, x, y: g.clamp(min=0) * (x > 0),
            "The mask is the output's value: dL/dy · y.": lambda g, x, y: g * y,
            "dL/dy is multiplied with x.": lambda g, x, y: g * x,
            "The mask is turned round: x ≤ 0.": lambda g, x, y: g * (x <= 0),
            "The mask is turned round: x < 0.": lambda g, x, y: g * (x < 0),
            "The mask is x ≠ 0.": lambda g, x, y: g * (x != 0),
            "The mask is the sign of x: −1 where x is negative.": lambda g, x, y: g * x.sign(),
            "The mask is x > 1.": lambda g, x, y: g * (x > 1),
            "dL/dx is the mask: dL/dy is ignored.": lambda g, x, y: (x > 0).double(),
            "dL/dx is the mask x ≥ 0: dL/dy is ignored.": lambda g, x, y: (x >= 0).double(),
            "dL/dx is relu(dL/dy · x).": lambda g, x, y: (g * x).clamp(min=0),
        },
    ),
    forward("The absolute value in place of ReLU.", "y = max(0, x).", lambda t: t.input.abs()),
    forward("The smaller of 0 and x in place of the larger.", "y = max(0, x).", lambda t: t.input.clamp(max=0)),
    forward("Nothing is cut off.", "y = max(0, x).", lambda t: t.input.clone()),
)


def leaky(mask: Callable[[Truth], Tensor], slope: Callable[[Truth], float]) -> Callable[[Truth], Tensor]:
    """dL/dy where the mask says so, and slope · dL/dy elsewhere."""
    return lambda t: torch.where(mask(t), t.g, slope(t) * t.g)


_LEAKY = "dL/dx = dL/dy where x > 0, and slope · dL/dy elsewhere: at 0, too."
LEAKY_RELU = (
    gradient(
        "input",
        "The mask is x ≥ 0: at 0 the slope is 1.",
        _LEAKY,
        leaky(lambda t: t.input >= 0, lambda t: t.negative_slope),
    ),
    gradient(
        "input",
        "The slope is there for every x, positive ones, too.",
        _LEAKY,
        leaky(lambda t: torch.zeros_like(t.input, dtype=torch.bool), lambda t: t.negative_slope),
    ),
    gradient("input", "The slope is forgotten: 0 for negative x.", _LEAKY, leaky(lambda t: t.input > 0, lambda t: 0.0)),
    gradient(
        "input",
        "At 0 the gradient is 0.",
        _LEAKY,
        lambda t: leaky(lambda t: t.input > 0, lambda t: t.negative_slope)(t) * (t.input != 0),
    ),
    gradient("input", "The mask is missing: dL/dx is dL/dy.", _LEAKY, lambda t: t.g.clone()),
    gradient(
        "input",
        "The mask is that of dL/dy > 0, not of x > 0.",
        _LEAKY,
        leaky(lambda t: t.g > 0, lambda t: t.negative_slope),
    ),
    gradient(
        "input",
        "The mask is turned round: the slope is that of positive x.",
        _LEAKY,
        leaky(lambda t: t.input <= 0, lambda t: t.negative_slope),
    ),
    gradient(
        "input", "The slope of negative x is −slope.", _LEAKY, leaky(lambda t: t.input > 0, lambda t: -t.negative_slope)
    ),
    gradient(
        "input",
        "The slope is multiplied with x.",
        _LEAKY,
        lambda t: torch.where(t.input > 0, t.g, t.negative_slope * t.input.detach() * t.g),
    ),
    gradient(
        "input",
        "dL/dx is the slope: dL/dy is ignored.",
        _LEAKY,
        lambda t: leaky(lambda t: t.input > 0, lambda t: t.negative_slope)(t) / t.g,
    ),
    *[
        gradient(
            "input", f"The slope is always {slope}.", _LEAKY, leaky(lambda t: t.input > 0, lambda t, slope=slope: slope)
        )
        for slope in (0.01, 0.1, 0.2, 1.0)
    ],
    forward(
        "The slope is forgotten: y = max(0, x).",
        "y = x where x > 0, and slope · x elsewhere.",
        lambda t: t.input.clamp(min=0),
    ),
    *[
        forward(
            f"The slope is always {slope}.",
            "y = x where x > 0, and slope · x elsewhere.",
            lambda t, slope=slope: t.output(negative_slope=slope),
        )
        for slope in (0.01, 0.1, 0.2)
    ],
)
SIGMOID = slopes(
    "dL/dx = dL/dy · y · (1 − y), with the output y.",
    {
        "The derivative is taken at the input: x · (1 − x) in place of y · (1 − y).": lambda g, x, y: g * x * (1 - x),
        "σ is applied twice: the derivative is taken at σ(y).": lambda g, x, y: g * sigmoid(y) * (1 - sigmoid(y)),
        "The factor 1 − y is missing.": lambda g, x, y: g * y,
        "The factor y is missing.": lambda g, x, y: g * (1 - y),
        "The sign is wrong: y · (1 + y).": lambda g, x, y: g * y * (1 + y),
        "The sign is wrong: y · (y − 1).": lambda g, x, y: g * y * (y - 1),
        "The derivative is tanh's: 1 − y².": lambda g, x, y: g * (1 - y * y),
        "The derivative is y², not y · (1 − y).": lambda g, x, y: g * y * y,
        "The derivative is (1 − y)², not y · (1 − y).": lambda g, x, y: g * (1 - y) ** 2,
        "The derivative is σ(x)·(1 − x).": lambda g, x, y: g * y * (1 - x),
        "The derivative is x·(1 − y).": lambda g, x, y: g * x * (1 - y),
        "dL/dy is ignored.": lambda g, x, y: y * (1 - y),
        "The exponential is not squared: e⁻ˣ / (1 + e⁻ˣ).": lambda g, x, y: g * (1 - y),
    },
)
TANH = (
    *slopes(
        "dL/dx = dL/dy · (1 − y²), with the output y.",
        {
            "The derivative is taken at the input: 1 − x² in place of 1 − y².": lambda g, x, y: g * (1 - x * x),
            "tanh is applied twice: the derivative is taken at tanh(y).": lambda g, x, y: g * (1 - y.tanh() ** 2),
            "y is not squared.": lambda g, x, y: g * (1 - y),
            "The sign is wrong: 1 + y².": lambda g, x, y: g * (1 + y * y),
            "The sign is wrong: y² − 1.": lambda g, x, y: g * (y * y - 1),
            "1 − y is squared, not y.": lambda g, x, y: g * (1 - y) ** 2,
            "The derivative is the sigmoid's: y · (1 − y).": lambda g, x, y: g * y * (1 - y),
            "The derivative is y².": lambda g, x, y: g * y * y,
            "dL/dy is ignored.": lambda g, x, y: 1 - y * y,
        },
    ),
    forward("The sigmoid in place of tanh.", "tanh(x) = 2 σ(2x) − 1.", lambda t: sigmoid(t.input)),
    forward("2 σ(x) − 1: the 2 inside is forgotten.", "tanh(x) = 2 σ(2x) − 1.", lambda t: 2 * sigmoid(t.input) - 1),
)


def along(t: Truth, x: Tensor) -> Tensor:
    """The sum along softmax's dimension."""
    return x.sum(t.dim, keepdim=True)


def wrong_dim(t: Truth, dim: int) -> Tensor:
    """The output along another dimension, where there is one."""
    if t.input.dim() < 2:
        raise NotApplicableError
    return t.output(dim=dim)


def another_dim(function: str) -> tuple[Mistake, ...]:
    """Along a dimension that was not asked for."""
    fixed = [
        forward(
            f"{function} is over the {name}, whatever dim says.",
            "The sum is over the dimension `dim`.",
            lambda t, dim=dim: wrong_dim(t, dim),
        )
        for dim, name in ((-1, "last dimension"), (0, "first dimension"), (1, "second dimension"))
    ]
    everything = forward(
        f"{function} is over all dimensions at once.",
        "The sum is over the dimension `dim` alone.",
        lambda t: t.layer(input=t.input.flatten(), dim=0)[0].view(t.input.shape),
    )
    return (*fixed, everything)


_SOFTMAX = "dL/dx = y · (dL/dy − Σ dL/dy · y), the sum over the dimension of the softmax."


def probabilities(t: Truth) -> Tensor:
    """The softmax along the right dimension."""
    return softmax(t.input.detach(), t.dim)


SOFTMAX = (
    *[
        gradient("input", sentence, _SOFTMAX, value)
        for sentence, value in (
            ("Only the diagonal of the Jacobian: dL/dy · y · (1 − y).", lambda t: t.g * t.y * (1 - t.y)),
            (
                "The sign of the off-diagonal elements is wrong: + y_i y_j.",
                lambda t: t.g * t.y * (1 - t.y) + t.y * (along(t, t.g * t.y) - t.g * t.y),
            ),
            ("The sign of the sum is wrong: y · (dL/dy + Σ dL/dy · y).", lambda t: t.y * (t.g + along(t, t.g * t.y))),
            ("The sum is missing: dL/dy · y.", lambda t: t.g * t.y),
            ("The sum is not weighted by y: y · (dL/dy − Σ dL/dy).", lambda t: t.y * (t.g - along(t, t.g))),
            ("The mean is taken in place of the sum.", lambda t: t.y * (t.g - (t.g * t.y).mean(t.dim, keepdim=True))),
            ("The factor y outside of the sum is missing.", lambda t: t.g - along(t, t.g * t.y)),
            ("The factor y on the sum is missing: dL/dy · y − Σ dL/dy · y.", lambda t: t.g * t.y - along(t, t.g * t.y)),
            (
                "The diagonal is missing: only the off-diagonal elements.",
                lambda t: -t.y * (along(t, t.g * t.y) - t.g * t.y),
            ),
            ("The gradient is log-softmax's: dL/dy − y · Σ dL/dy.", lambda t: t.g - t.y * along(t, t.g)),
            ("The sum is over all elements, not over one dimension.", lambda t: t.y * (t.g - (t.g * t.y).sum())),
            (
                "The sum is over the last dimension, whatever dim says.",
                lambda t: t.y * (t.g - (t.g * t.y).sum(-1, keepdim=True)),
            ),
            (
                "The sum is over the first dimension, whatever dim says.",
                lambda t: t.y * (t.g - (t.g * t.y).sum(0, keepdim=True)),
            ),
            (
                "The sum is over the second dimension, whatever dim says.",
                lambda t: t.y * (t.g - (t.g * t.y).sum(1, keepdim=True)),
            ),
            (
                "The derivative is taken at the input: x in place of y.",
                lambda t: t.input * (t.g - along(t, t.g * t.input)),
            ),
            ("The softmax is taken twice: of y in place of x.", lambda t: t.gradient("input", input=t.y)),
            ("The gradient of a loss: y − dL/dy.", lambda t: t.y - t.g),
        )
    ],
    *another_dim("The softmax"),
    forward("The exponentials are not divided by their sum.", "y = eˣ / Σ eˣ.", lambda t: t.input.exp()),
    forward(
        "The sum of the exponentials is taken for a constant.",
        _SOFTMAX,
        lambda t: t.input.exp() / along(t, t.input.exp()).detach(),
    ),
    forward(
        "The sum of the exponentials is taken for a constant, but not the largest element that is subtracted.",
        _SOFTMAX,
        lambda t: _with_constant_sum(t),
    ),
    forward("The logarithm of softmax.", "y = eˣ / Σ eˣ.", lambda t: softmax(t.input, t.dim).log()),
)


def _with_constant_sum(t: Truth) -> Tensor:
    e = (t.input - t.input.amax(t.dim, keepdim=True)).exp()
    return e / along(t, e).detach()


_LOG_SOFTMAX = "dL/dx = dL/dy − softmax(x) · Σ dL/dy, the sum over the dimension of the softmax."
LOG_SOFTMAX = (
    *[
        gradient("input", sentence, _LOG_SOFTMAX, value)
        for sentence, value in (
            ("The sum is missing: dL/dy − softmax(x) · dL/dy.", lambda t: t.g - probabilities(t) * t.g),
            ("The sum of dL/dy is taken for 1: dL/dy − softmax(x).", lambda t: t.g - probabilities(t)),
            ("The softmax is missing: dL/dy − Σ dL/dy.", lambda t: t.g - along(t, t.g)),
            (
                "The mean of dL/dy in place of its sum.",
                lambda t: t.g - probabilities(t) * t.g.mean(t.dim, keepdim=True),
            ),
            ("The mean in place of the softmax: dL/dy − mean(dL/dy).", lambda t: t.g - t.g.mean(t.dim, keepdim=True)),
            ("The sign is wrong: dL/dy + softmax(x) · Σ dL/dy.", lambda t: t.g + probabilities(t) * along(t, t.g)),
            ("y is taken for the softmax: the exponential is forgotten.", lambda t: t.g - t.y * along(t, t.g)),
            ("The second part is missing: dL/dx is dL/dy.", lambda t: t.g),
            ("The gradient is softmax's.", lambda t: probabilities(t) * (t.g - along(t, t.g * probabilities(t)))),
            ("The sum is over all elements, not over one dimension.", lambda t: t.g - probabilities(t) * t.g.sum()),
            (
                "The sum is over the last dimension, whatever dim says.",
                lambda t: t.g - probabilities(t) * t.g.sum(-1, keepdim=True),
            ),
            (
                "The sum is over the first dimension, whatever dim says.",
                lambda t: t.g - probabilities(t) * t.g.sum(0, keepdim=True),
            ),
            ("dL/dy is divided by the softmax.", lambda t: t.g / probabilities(t)),
            (
                "The sum is weighted by the softmax.",
                lambda t: t.g - probabilities(t) * along(t, t.g * probabilities(t)),
            ),
        )
    ],
    *another_dim("The softmax"),
    forward("The logarithm is forgotten.", "y = x − log Σ eˣ.", lambda t: softmax(t.input, t.dim)),
    forward(
        "The logarithm to base 2.",
        "The logarithm is the natural one.",
        lambda t: t.y / torch.tensor(2.0).double().log(),
    ),
)


def one_row(g: Tensor, index: int) -> Tensor:
    """dL/dy of one row alone, whatever dimensions the rows have."""
    kept = torch.zeros_like(g)
    kept.view(-1, g.shape[-1])[index] = g.reshape(-1, g.shape[-1])[index]
    return kept


def of_rows(name: str) -> Iterator[Mistake]:
    """Sums over the rows that are no sums."""
    summed = "What all rows share gets the sum of what comes back from each, over all leading dimensions."
    yield gradient(
        name,
        "The mean over the batch in place of the sum.",
        summed,
        lambda t: t.gradient(name) * t.g.shape[-1] / t.g.numel(),
    )
    for index, which in ((-1, "last"), (0, "first")):
        yield gradient(
            name,
            f"Only the {which} row of the batch counts.",
            summed,
            lambda t, index=index: t.gradient(name, g=one_row(t.g, index)),
        )


_LINEAR = "y = x Wᵀ + b, dL/dx = dL/dy W, dL/dW = dL/dyᵀ x and dL/db = Σ dL/dy over the batch."
LINEAR = (
    forward("The weight is not transposed: x W.", _LINEAR, lambda t: t.output(weight=square(t.weight).T)),
    forward("The bias is forgotten.", _LINEAR, lambda t: t.output(bias=None)),
    forward("The bias is subtracted.", _LINEAR, lambda t: t.output(bias=-t.bias)),
    gradient(
        "input", "The weight is transposed in dL/dx: dL/dy Wᵀ.", _LINEAR, lambda t: t.g @ square(t.weight.detach()).T
    ),
    gradient("weight", "dL/dW is transposed: xᵀ dL/dy.", _LINEAR, lambda t: square(t.gradient("weight")).T),
    gradient(
        "weight",
        "The mean of the input in place of the input.",
        _LINEAR,
        lambda t: t.gradient("weight", input=t.input.mean(0, keepdim=True).expand_as(t.input)),
    ),
    gradient("weight", "The output in place of dL/dy.", _LINEAR, lambda t: t.gradient("weight", g=t.y.detach())),
    gradient(
        "weight",
        "The bias's gradient, without the input.",
        _LINEAR,
        lambda t: t.gradient("weight", input=torch.ones_like(t.input)),
    ),
    *[row for name in ("weight", "bias") for row in of_rows(name)],
)


def count_lookups(t: Truth) -> Tensor:
    """How often each row is looked up."""
    rows = torch.arange(t.weight.shape[0]).unsqueeze(1)
    return (t.input.flatten() == rows).sum(1, keepdim=True).double()


def keep_last_lookup(t: Truth, first: bool = False, has_padding: bool = True) -> Tensor:
    """dL/dW where a repeated index is written, not added: the last counts, or the first; and without padding_idx."""
    found = torch.zeros_like(t.weight)
    pairs = list(zip(t.input.flatten().tolist(), t.g.reshape(-1, t.weight.shape[1]), strict=True))
    for row, g in reversed(pairs) if first else pairs:
        found[row] = g
    if has_padding and t.padding_idx is not None:
        found[t.padding_idx] = 0
    return found


_EMBEDDING = "dL/dW[i] is the sum of dL/dy over all places where i is looked up: index_add_, not dW[i] = dL/dy."
EMBEDDING = (
    gradient("weight", "Repeated indices are overwritten.", _EMBEDDING, keep_last_lookup),
    gradient("weight", "Of repeated indices only the first counts.", _EMBEDDING, lambda t: keep_last_lookup(t, True)),
    gradient(
        "weight",
        "The mean over repeated indices in place of the sum.",
        _EMBEDDING,
        lambda t: t.gradient("weight") / count_lookups(t).clamp(min=1),
    ),
    gradient(
        "weight",
        "padding_idx has a gradient.",
        "The row padding_idx is never trained: its gradient is 0.",
        lambda t: t.gradient("weight", padding_idx=None),
    ),
    gradient(
        "weight",
        "padding_idx has a gradient, and repeated indices are overwritten.",
        _EMBEDDING,
        lambda t: keep_last_lookup(t, has_padding=False),
    ),
    gradient(
        "weight",
        "A negative padding_idx is not counted from the end.",
        "−1 is the last row.",
        lambda t: t.gradient("weight", padding_idx=None if (t.padding_idx or 0) < 0 else t.padding_idx),
    ),
    gradient(
        "weight",
        "dL/dW counts how often a row is looked up: dL/dy is ignored.",
        _EMBEDDING,
        lambda t: count_lookups(t).expand_as(t.weight),
    ),
    gradient(
        "weight", "dL/dy is multiplied with the weight.", _EMBEDDING, lambda t: t.gradient("weight") * t.weight.detach()
    ),
    forward(
        "padding_idx gives zeros.",
        "The row padding_idx is looked up as any other.",
        lambda t: t.y * (t.input != t.padding_idx % t.weight.shape[0]).unsqueeze(-1),
    ),
)


_DROPOUT = "y = x · mask / (1 − p), and dL/dx = dL/dy · mask / (1 − p) with the same mask."
DROPOUT = (
    forward("The scale 1 / (1 − p) is forgotten.", _DROPOUT, lambda t: t.input * t.mask),
    forward("Scaled by 1 / p, not by 1 / (1 − p).", _DROPOUT, lambda t: t.input * t.mask / t.p),
    forward("Scaled by 1 − p, not by 1 / (1 − p).", _DROPOUT, lambda t: t.input * t.mask * (1 - t.p)),
    forward("Scaled by p.", _DROPOUT, lambda t: t.input * t.mask * t.p),
    forward("The mask is turned round.", _DROPOUT, lambda t: t.input * (1 - t.mask) / (1 - t.p)),
    forward("The mask is turned round, and the scale is forgotten.", _DROPOUT, lambda t: t.input * (1 - t.mask)),
    forward("The mask is forgotten.", _DROPOUT, lambda t: t.input / (1 - t.p)),
    gradient("input", "The mask and the scale are forgotten: dL/dx is dL/dy.", _DROPOUT, lambda t: t.g.clone()),
    gradient("input", "The scale is applied twice.", _DROPOUT, lambda t: t.g * t.mask / (1 - t.p) ** 2),
    gradient("input", "The mask is that of the input: x ≠ 0.", _DROPOUT, lambda t: t.g * (t.input != 0) / (1 - t.p)),
    gradient(
        "input",
        "The mask is that of the output: where y is 0 for an x of 0, nothing comes back.",
        _DROPOUT,
        lambda t: t.g * (t.y != 0) / (1 - t.p),
    ),
    gradient("input", "dL/dy is multiplied with the output.", _DROPOUT, lambda t: t.g * t.y.detach()),
    gradient("input", "dL/dy is multiplied with x.", _DROPOUT, lambda t: t.g * t.input.detach() * t.mask / (1 - t.p)),
)
