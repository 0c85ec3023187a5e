"""Multi-head attention and the transformer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch.kernels.execution import has_concrete_values, is_autocasting, needs_gradient
from torchfromscratch.nn.dropout import Dropout
from torchfromscratch.nn.linear import Linear
from torchfromscratch.nn.normalization import LayerNorm
from torchfromscratch.nn.parts import make_by_hand, with_torchs_signature

__all__ = [
    "MultiheadAttention",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]


class MultiheadAttention(torch.nn.MultiheadAttention):
    """Attention of several heads side by side: torch.nn.MultiheadAttention by hand."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if query.is_nested or key.is_nested or value.is_nested:
            raise AssertionError("nested tensors are not supported; pad them and pass a key_padding_mask")
        swap = self.batch_first and query.dim() == 3
        if swap:
            q = query.transpose(0, 1)
            k = q if key is query else key.transpose(0, 1)  # what is one stays one
            v = q if value is query else k if value is key else value.transpose(0, 1)
            query, key, value = q, k, v
        in_proj_weight = self.in_proj_weight  # once: it may be computed from others
        output, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=in_proj_weight is None,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return output.transpose(0, 1) if swap else output, weights


@with_torchs_signature
class TransformerEncoderLayer(torch.nn.TransformerEncoderLayer):
    """Self-attention and two linear layers, each added to its input: torch.nn.TransformerEncoderLayer by hand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _initialize(self, super().__init__, *args, **kwargs)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        x = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(x + self._sa_block(x, src_mask, src_key_padding_mask, is_causal))
        return self.norm2(x + self._ff_block(x))

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(_activate(self.activation, self.linear1(x)))))


@with_torchs_signature
class TransformerDecoderLayer(torch.nn.TransformerDecoderLayer):
    """As the encoder's layer, with attention to its output between: torch.nn.TransformerDecoderLayer by hand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        make_by_hand(self, _BY_HAND)

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self.linear2(self.dropout(_activate(self.activation, self.linear1(x)))))


@with_torchs_signature
class TransformerEncoder(torch.nn.TransformerEncoder):
    """Copies of an encoder layer, one on the other: torch.nn.TransformerEncoder by hand.

    Where torch.nn's leaves out the padding, by nested tensors, ours computes it and then sets it to zero.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        make_by_hand(self.layers, _BY_HAND)

    @property
    def use_nested_tensor(self) -> bool:
        """False: nested tensors are there for the built-in kernels."""
        return False

    @use_nested_tensor.setter
    def use_nested_tensor(self, value: bool) -> None:
        """What torch.nn's constructor finds: whether its own would use them."""
        vars(self)["use_nested_tensor"] = value

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        output = super().forward(src, mask, src_key_padding_mask, is_causal)
        return zero_padding(self, output, src, mask, src_key_padding_mask)


@with_torchs_signature
class TransformerDecoder(torch.nn.TransformerDecoder):
    """Copies of a decoder layer, one on the other: torch.nn.TransformerDecoder by hand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        make_by_hand(self.layers, _BY_HAND)


@with_torchs_signature
class Transformer(torch.nn.Transformer):
    """An encoder and a decoder that attends to its output: torch.nn.Transformer by hand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _initialize(self, super().__init__, *args, **kwargs)


def zero_padding(
    encoder: torch.nn.TransformerEncoder, output: Tensor, src: Tensor, mask: Tensor | None, padding: Tensor | None
) -> Tensor:
    """The output of an encoder, with what torch.nn's makes of zeros where it leaves out the padding."""
    if padding is None or mask is not None or not _leaves_out(encoder, src, padding.bool()):
        return output
    nothing = output.new_zeros(output.shape[-1])
    nothing = nothing if encoder.norm is None else encoder.norm(nothing)
    return torch.where(padding.bool().unsqueeze(-1), nothing, output)


def _leaves_out(encoder: torch.nn.TransformerEncoder, src: Tensor, padding: Tensor) -> bool:
    """Whether torch.nn's encoder, evaluated without gradients, would leave out the padding."""
    layer = encoder.layers[0]
    if layer.training or src.dim() != 3 or not vars(encoder).get("use_nested_tensor", False):
        return False
    if not torch.backends.mha.get_fastpath_enabled() or is_autocasting("cuda"):
        return False
    if needs_gradient(src, *layer.parameters()):
        return False
    if not encoder.mask_check:
        return True
    return has_concrete_values(padding) and not bool((padding[:, :-1] & ~padding[:, 1:]).any())


_BY_HAND: dict[type, type] = {
    ours.__bases__[0]: ours
    for ours in (
        Dropout,
        LayerNorm,
        Linear,
        MultiheadAttention,
        TransformerDecoder,
        TransformerDecoderLayer,
        TransformerEncoder,
        TransformerEncoderLayer,
    )
}


def _initialize(module: torch.nn.Module, initialize: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Call torch.nn's constructor, which has its fast path for torch's ReLU and GELU and knows nothing of ours."""
    given = inspect.signature(initialize).bind(*args, **kwargs)
    activation: Any = given.arguments.get("activation")
    torchs: dict[Any, Any] = {F.relu: torch.nn.functional.relu, F.gelu: torch.nn.functional.gelu}
    known = torchs.get(activation)
    if known is not None:
        given.arguments["activation"] = known
    initialize(*given.args, **given.kwargs)
    make_by_hand(module, _BY_HAND)
    for part in module.modules():
        if known is not None and getattr(part, "activation", None) is known:
            part.activation = activation


def _activate(activation: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    """`activation(input)`, by hand if it is one of those that torch.nn's constructor chooses."""
    if activation is torch.nn.functional.relu:
        return F.relu(input)
    if activation is torch.nn.functional.gelu:
        return F.gelu(input)
    return activation(input)
