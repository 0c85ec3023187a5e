"""Batch and layer normalisation: every value of a channel, or of a sample, depends on all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.explaining.explanation import (
    Explanation,
    Fragment,
    Grid,
    Pass,
    Step,
    factor,
    join,
    number,
    sizes,
)
from torchfromscratch.explaining.layers.common import GradOutput, at, both, cells, numbers, product_step


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
        means.append(Step(c, {"x": of[c]}, [("(", None), *join(" + ", added), over_n]))
        variances.append(Step(c, {"x": of[c], "μ": [c]}, [("(", None), *join(" + ", squares), over_n]))
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


def layer_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    grad_output: GradOutput,
) -> Explanation:
    """Mean, variance, x̂, y and the three gradients: input (N, D), each row normalised, weight γ and bias β (D)."""
    operands = {"x": input, "γ": weight, "β": bias}
    features = input.shape[1]
    ours, theirs = both(lambda F, x, γ, β: F.layer_norm(x, (features,), γ, β, eps), operands, grad_output)
    grad, mean, variance = ours["dL/dy"], input.mean(1), input.var(1, correction=0)
    normal = functional.layer_norm(input, (features,), None, None, eps)
    to_normal = grad * weight
    grids = {
        **{name: Grid(value) for name, value in operands.items()},
        "dL/dy": Grid(grad),
        "μ": Grid(mean, "the mean of each row", torch=input.mean(1)),
        "σ²": Grid(variance, "its variance, divided by the count D"),
        "x̂": Grid(normal, "x in units of σ", torch=torch.nn.functional.layer_norm(input, (features,), eps=eps)),
        "h": Grid(to_normal, "the gradient of x̂"),
        "A": Grid(to_normal.sum(1), "the sum of h over each row"),
        "B": Grid((to_normal * normal).sum(1), "how much of h lies along x̂"),
        **{name: Grid(ours[name], torch=theirs[name]) for name in ("y", "dL/dβ", "dL/dγ", "dL/dx")},
    }
    of = numbers(input)
    means, variances, sums, shares = [], [], [], []
    for n, values in enumerate(input.tolist()):
        along, μ = of[n].tolist(), float(mean[n])
        added: list[Fragment] = [(factor(value), t) for t, value in enumerate(values)]
        squares: list[Fragment] = [(f"({number(v)} − {factor(μ)})²", t) for t, v in enumerate(values)]
        over_count: Fragment = (f") / {features}", None)
        means.append(Step(n, {"x": along}, [("(", None), *join(" + ", added), over_count]))
        variances.append(Step(n, {"x": along, "μ": [n]}, [("(", None), *join(" + ", squares), over_count]))
        sums.append(product_step(grids, n, {"h": along}))
        shares.append(product_step(grids, n, {"h": along, "x̂": along}))
    normals, scaled, back, to_input = [], [], [], []
    for cell, (n, d) in cells(input):
        x, x_hat, g, h = (float(t[n, d]) for t in (input, normal, grad, to_normal))
        μ, σ2, sum_h, share = (float(grids[name].values[n]) for name in ("μ", "σ²", "A", "B"))
        γ, β = float(weight[d]), float(bias[d])
        deviation = f"√({number(σ2)} + {number(eps)})"
        inner = f"({features}·{factor(h)} − {factor(sum_h)} − {factor(x_hat)}·{factor(share)})"
        normals.append(
            Step(cell, {"x": [cell], "μ": [n], "σ²": [n]}, [(f"({number(x)} − {factor(μ)}) / {deviation}", 0)])
        )
        scaled.append(
            Step(cell, {"x̂": [cell], "γ": [d], "β": [d]}, [(f"{factor(γ)}·{factor(x_hat)} + {factor(β)}", 0)])
        )
        back.append(Step(cell, {"dL/dy": [cell], "γ": [d]}, [(f"{factor(g)}·{factor(γ)}", 0)]))
        used = {"h": [cell], "x̂": [cell], "σ²": [n], "A": [n], "B": [n]}
        to_input.append(Step(cell, used, [(f"1 / ({features}·{deviation}) · {inner}", 0)]))
    to_bias = [product_step(grids, d, {"dL/dy": of[:, d].tolist()}) for d in range(features)]
    to_weight = [product_step(grids, d, {"dL/dy": of[:, d].tolist(), "x̂": of[:, d].tolist()}) for d in range(features)]
    passes = [
        Pass("μ", "The mean of each row", "μ[n] = 1/D · Σ x", ("x",), means, ("x",)),
        Pass("σ²", "The variance of each row", "σ²[n] = 1/D · Σ (x − μ)²", ("x", "μ"), variances, ("x",)),
        Pass("x̂", "Normalise", "x̂ = (x − μ) / √(σ² + ε)", ("x", "μ", "σ²"), normals),
        Pass("y", "Scale and shift each column", "y = γ · x̂ + β", ("x̂", "γ", "β"), scaled),
        Pass("dL/dβ", "Gradient of the shift", "dL/dβ[d] = Σ_n dL/dy", ("dL/dy",), to_bias, ("dL/dy",)),
        Pass("dL/dγ", "Gradient of the scale", "dL/dγ[d] = Σ_n dL/dy · x̂", ("dL/dy", "x̂"), to_weight, ("dL/dy", "x̂")),
        Pass("h", "Gradient of x̂", "h = dL/dy · γ", ("dL/dy", "γ"), back),
        Pass("A", "The sum of h over a row", "A[n] = Σ_d h", ("h",), sums, ("h",)),
        Pass("B", "The share of h along x̂", "B[n] = Σ_d h · x̂", ("h", "x̂"), shares, ("h", "x̂")),
        Pass(
            "dL/dx",
            "Gradient of the input: what is left of h without its mean and its share along x̂",
            "dL/dx = 1 / (D·√(σ² + ε)) · (D·h − A − x̂·B)",
            ("h", "x̂", "σ²", "A", "B"),
            to_input,
        ),
    ]
    settings = f"input {sizes(input.shape)}, each row of D = {features} normalised, ε = {number(eps)}"
    return Explanation("layer_norm", settings, (*operands, "dL/dy"), grids, passes)
