"""Attention: masks, causality, scales, grouped queries, batch shapes; one head and many; the transformer."""

import torch
from torch import Tensor

from tests.cases import Case, ModuleCase

# torch's fused kernel, which it takes where no mask needs a gradient, has no second derivative
FUSED = {"jacobian_and_hessian": "torch has no second derivative of its fused attention"}
RANDOM = dict.fromkeys(
    ("first_derivatives", "jacobian_and_hessian"), "vmap refuses random draws unless told how to draw"
)
DEEP = dict.fromkeys(
    ("accuracy", "autocast"),
    "the largest error behind so many layers is luck; it is tested of each layer within",
)
SEQUENCE_FIRST = {  # where the first dimension, which that test expands, is the sequence
    "not_contiguous": "with all keys equal some gradients are zero, and rounding is all there is to compare"
}

QUERY, KEY, VALUE = (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)


def _allowed(*shape: int) -> Tensor:
    """A mask without a pattern; nothing may be attended to in the row before the last."""
    allowed = torch.arange(torch.Size(shape).numel()).view(shape) * 7 % 5 > 1
    allowed[..., -2, :] = False
    return allowed


CASES = [
    Case("attention", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v), (QUERY, KEY, VALUE), leave_out=FUSED),
    Case(
        "attention wider values, no batch",
        lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
        ((4, 5), (6, 5), (6, 7)),
        leave_out=SEQUENCE_FIRST,
    ),
    Case(
        "attention causal",
        lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ((3, 4, 5), (3, 6, 5), (3, 6, 5)),
        leave_out=FUSED,
    ),
    Case(
        "attention boolean mask",
        lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, _allowed(3, 4, 6).to(q.device)),
        (QUERY, KEY, VALUE),
        leave_out=FUSED,
    ),
    Case(
        "attention additive mask",
        lambda F, q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask, scale=-0.5),
        (QUERY, KEY, VALUE, (2, 1, 1, 6)),
        leave_out=FUSED,
    ),
    Case(
        "attention broadcast",
        lambda F, q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask),
        ((3, 4, 5), (1, 6, 5), (2, 1, 6, 5), (4, 6)),
    ),
    Case(
        "attention grouped queries",
        lambda F, q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True),
        ((2, 6, 4, 5), (2, 2, 6, 5), (2, 3, 6, 5), (4, 6)),
    ),
    Case(
        "attention dropout",
        lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.4),
        (QUERY, KEY, VALUE),
        leave_out=RANDOM,
    ),
    Case(
        "multi_head_attention_forward",
        lambda F, x, mask, padding, w_in, b_in, b_k, b_v, w_out, b_out: F.multi_head_attention_forward(
            *(x, x, x, 6, 2, w_in, b_in, b_k, b_v, True, 0.0, w_out, b_out),
            key_padding_mask=padding,
            attn_mask=mask,
            average_attn_weights=False,
        ),
        ((3, 2, 6), (3, 3), (2, 3), (18, 6), (18,), (1, 1, 6), (1, 1, 6), (6, 6), (6,)),
    ),
]

MODULE_CASES = [
    ModuleCase(
        "MultiheadAttention",
        lambda nn: nn.MultiheadAttention(6, 2),
        ((4, 2, 6), (5, 2, 6), (5, 2, 6)),
        leave_out=SEQUENCE_FIRST,
    ),
    ModuleCase(
        "MultiheadAttention kdim vdim batch_first",
        lambda nn: nn.MultiheadAttention(6, 3, kdim=4, vdim=5, bias=False, add_zero_attn=True, batch_first=True),
        ((2, 4, 6), (2, 5, 4), (2, 5, 5)),
    ),
    ModuleCase(
        "MultiheadAttention self, masks, no weights",
        lambda nn: nn.MultiheadAttention(6, 2, add_bias_kv=True),
        ((4, 2, 6), (4, 4), (2, 4)),
        lambda attention, x, mask, padding: attention(x, x, x, padding, False, mask)[0],
        leave_out=FUSED | {"hooks": "the hook's answer is no tuple to take the output from"},
    ),
    ModuleCase(
        "TransformerEncoderLayer",
        lambda nn: nn.TransformerEncoderLayer(4, 2, 6, 0.0),
        ((3, 2, 4),),
        leave_out=FUSED | SEQUENCE_FIRST | DEEP,
    ),
    ModuleCase(
        "TransformerEncoderLayer norm_first gelu",
        lambda nn: nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", norm_first=True, batch_first=True, bias=False),
        ((2, 3, 4), (3, 3)),
        leave_out=FUSED,
    ),
    ModuleCase(
        "TransformerDecoderLayer",
        lambda nn: nn.TransformerDecoderLayer(4, 2, 6, 0.0, norm_first=True),
        ((3, 2, 4), (5, 2, 4), (3, 3)),
        leave_out=FUSED | SEQUENCE_FIRST | DEEP,
    ),
    ModuleCase(
        "Transformer",
        lambda nn: nn.Transformer(4, 2, 1, 1, 6, 0.0, batch_first=True),
        ((2, 3, 4), (2, 2, 4)),
        leave_out=FUSED | SEQUENCE_FIRST | DEEP,
    ),
]
