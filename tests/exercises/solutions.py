"""What stands in the gap of each exercise: the lines in place of its `raise`."""

SOLUTIONS = {
    "01_linear": """
return (rows_g @ w).view(x.shape), rows_g.T @ rows_x, rows_g.sum(0)
""",
    "02_relu": """
return g * (x > 0)
""",
    "03_leaky_relu": """
return torch.where(x > 0, g, g * ctx.slope), None
""",
    "04_sigmoid": """
return g * y * (1 - y)
""",
    "05_tanh": """
return g * (1 - y * y)
""",
    "06_dropout": """
return g * mask / (1 - ctx.p), None, None
""",
    "07_softmax": """
return y * (g - (y * g).sum(ctx.dim, keepdim=True)), None
""",
    "08_log_softmax": """
return g - y.exp() * g.sum(ctx.dim, keepdim=True), None
""",
    "09_mse_loss": """
grad_x = g * 2 * (x - t) / x.numel()
return grad_x, -grad_x
""",
    "10_bce": """
return g * (p - t) / (p * (1 - p)) / p.numel(), None
""",
    "11_cross_entropy": """
return g * (probabilities - one_hot) / target.numel(), None
""",
    "12_embedding": """
return None, grad_w.index_add(0, index.reshape(-1), g.reshape(-1, g.shape[-1]))
""",
    "13_conv1d": """
return torch.einsum("ncik,ock->noi", below, weight)
""",
    "14_conv2d_weight": """
grad_w = torch.einsum("ncijkl,noij->ockl", below, g)
return grad_x, grad_w, None, None
""",
    "15_conv2d_input": """
(s1, s2), (p1, p2), (k1, k2) = ctx.stride, ctx.padding, w.shape[2:]
spread = g.new_zeros(*g.shape[:2], x.shape[2] + 2 * p1 - k1 + 1, x.shape[3] + 2 * p2 - k2 + 1)
spread[:, :, : (g.shape[2] - 1) * s1 + 1 : s1, : (g.shape[3] - 1) * s2 + 1 : s2] = g
below = windows(pad(spread, (k1 - 1, k2 - 1)), (k1, k2), (1, 1))
full = torch.einsum("noijkl,ockl->ncij", below, w.flip(2, 3))
return full[:, :, p1 : p1 + x.shape[2], p2 : p2 + x.shape[3]], grad_w, None, None
""",
    "16_max_pool2d": """
place = (rows + winners // ctx.kernel[1]) * width + columns + winners % ctx.kernel[1]
grad_x = g.new_zeros(n, c, height * width).scatter_add(2, place.flatten(2), g.flatten(2))
return grad_x.view(x.shape), None, None
""",
    "17_avg_pool2d": """
grad_x = g.new_zeros(ctx.size)
share = g / (ctx.kernel[0] * ctx.kernel[1])
for k in range(ctx.kernel[0]):
    for m in range(ctx.kernel[1]):
        rows = slice(k, k + (g.shape[2] - 1) * ctx.stride[0] + 1, ctx.stride[0])
        columns = slice(m, m + (g.shape[3] - 1) * ctx.stride[1] + 1, ctx.stride[1])
        grad_x[:, :, rows, columns] += share
return grad_x, None, None
""",
    "18_batch_norm": """
h = g * by_channel(weight, x)
grad_x = rho * (h - h.mean(over, keepdim=True) - x_hat * (h * x_hat).mean(over, keepdim=True))
return grad_x, (g * x_hat).sum(over), g.sum(over), None
""",
    "19_layer_norm": """
h = g * weight
grad_x = rho * (h - h.mean(over, keepdim=True) - x_hat * (h * x_hat).mean(over, keepdim=True))
return grad_x, None, sum_to(g * x_hat, weight), sum_to(g, weight), None
""",
    "20_attention": """
h = g @ v.mT
ds = p * (h - (h * p).sum(-1, keepdim=True))
return ds @ k * scale, ds.mT @ q * scale, p.mT @ g
""",
}
