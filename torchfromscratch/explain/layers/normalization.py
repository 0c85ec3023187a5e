"""Batch normalisation: every value of a channel depends on all of them."""

from __future__ import annotations

from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.explain.explanation import Explanation, Fragment, Grid, Pass, Step, factor, joined, number, sizes
from torchfromscratch.explain.layers.common import GradOutput, at, both, cells, numbers, product_step


def batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    grad_output: GradOutput,
) -> Explanation:
    """Mean, variance, x̂, y and the three gradients: input (N, C, …), weight γ and bias β (C)."""
    operands = {"x": input, "γ": weight, "β": bias}
    ours, theirs = both(
        lambda F, x, γ, β: F.batch_norm(x, None, None, γ, β, training=True, eps=eps), operands, grad_output
    )
    grad, over = ours["dL/dy"], [0, *range(2, input.dim())]
    channels, count = input.shape[1], input.numel() // input.shape[1]
    mean, variance = input.mean(over), input.var(over, correction=0)
    along = (1, channels, *[1] * (input.dim() - 2))
    normal = functional.batch_norm(input, None, None, training=True, eps=eps)
    grids = {
        **{name: Grid(value) for name, value in operands.items()},
        "dL/dy": Grid(grad),
        "μ": Grid(mean, "the mean of each channel", torch=input.mean(over)),
        "σ²": Grid(variance, "its variance, divided by the count n"),
        "x̂": Grid(normal, "x in units of σ", torch=(input - mean.view(along)) / (variance + eps).view(along).sqrt()),
        **{name: Grid(ours[name], torch=theirs[name]) for name in ("y", "dL/dβ", "dL/dγ", "dL/dx")},
    }
    of = numbers(input).transpose(0, 1).reshape(channels, -1).tolist()  # the cells of each channel
    means, variances, normals, scaled, to_bias, to_weight, to_input = [], [], [], [], [], [], []
    for c in range(channels):
        μ, σ2 = float(mean[c]), float(variance[c])
        values = at(input, of[c])
        added: list[Fragment] = [(factor(value), t) for t, value in enumerate(values)]
        squares: list[Fragment] = [(f"({number(v)} − {factor(μ)})²", t) for t, v in enumerate(values)]
        over_n: Fragment = (f") / {count}", None)
        means.append(Step(c, {"x": of[c]}, [("(", None), *joined(" + ", added), over_n]))
        variances.append(Step(c, {"x": of[c], "μ": [c]}, [("(", None), *joined(" + ", squares), over_n]))
        to_bias.append(product_step(grids, c, {"dL/dy": of[c]}))
        to_weight.append(product_step(grids, c, {"dL/dy": of[c], "x̂": of[c]}))
    for cell, (_, c, *_) in cells(input):
        (x,), (h,), (g,) = at(input, [cell]), at(normal, [cell]), at(grad, [cell])
        μ, σ2, γ, β = (float(t[c]) for t in (mean, variance, weight, bias))
        sum_g, sum_gh = float(ours["dL/dβ"][c]), float(ours["dL/dγ"][c])
        deviation = f"√({number(σ2)} + {number(eps)})"
        normals.append(
            Step(cell, {"x": [cell], "μ": [c], "σ²": [c]}, [(f"({number(x)} − {factor(μ)}) / {deviation}", 0)])
        )
        scaled.append(Step(cell, {"x̂": [cell], "γ": [c], "β": [c]}, [(f"{factor(γ)}·{factor(h)} + {factor(β)}", 0)]))
        inner = f"({count}·{factor(g)} − {factor(sum_g)} − {factor(h)}·{factor(sum_gh)})"
        to_input.append(
            Step(
                cell,
                {"dL/dy": [cell], "x̂": [cell], "γ": [c], "σ²": [c], "dL/dβ": [c], "dL/dγ": [c]},
                [(f"{factor(γ)} / ({count}·{deviation}) · {inner}", 0)],
            )
        )
    passes = [
        Pass("μ", "The mean of each channel", "μ[c] = 1/n · Σ x", ("x",), means, ("x",)),
        Pass("σ²", "The variance of each channel", "σ²[c] = 1/n · Σ (x − μ)²", ("x", "μ"), variances, ("x",)),
        Pass("x̂", "Normalise", "x̂ = (x − μ) / √(σ² + ε)", ("x", "μ", "σ²"), normals),
        Pass("y", "Scale and shift", "y = γ · x̂ + β", ("x̂", "γ", "β"), scaled),
        Pass("dL/dβ", "Gradient of the shift", "dL/dβ = Σ dL/dy", ("dL/dy",), to_bias, ("dL/dy",)),
        Pass("dL/dγ", "Gradient of the scale", "dL/dγ = Σ dL/dy · x̂", ("dL/dy", "x̂"), to_weight, ("dL/dy", "x̂")),
        Pass(
            "dL/dx",
            "Gradient of the input: what is left of dL/dy without its mean and its share along x̂",
            "dL/dx = γ / (n·√(σ² + ε)) · (n·dL/dy − dL/dβ − x̂·dL/dγ)",
            ("dL/dy", "x̂", "γ", "σ²", "dL/dβ", "dL/dγ"),
            to_input,
        ),
    ]
    settings = f"input {sizes(input.shape)}, n = {count} values a channel, ε = {number(eps)}, training"
    return Explanation("batch_norm", settings, (*operands, "dL/dy"), grids, passes)
