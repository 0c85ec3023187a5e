"""Tables of mistakes: how each wrong formula looks.

A row is a wrong formula that is computed and compared with what was given, in every wrong case. `forward` rows are
another layer's definition, whose gradients are those of that other definition; `gradient` rows are wrong gradients
of the right layer. The first row that fits is the one that is told, so what is special stands before what is general.
"""

from torchfromscratch.checking.mistakes import convolution, elementwise, loss, normalization, pooling, sequence
from torchfromscratch.checking.mistakes.row import Mistake

_DIMS = (1, 2, 3)
TABLES: dict[str, tuple[Mistake, ...]] = {
    **{f"conv{n}d": convolution.CONVOLUTION for n in _DIMS},
    **{f"conv_transpose{n}d": convolution.TRANSPOSED for n in _DIMS},
    **{f"max_pool{n}d": pooling.MAX for n in _DIMS},
    **{f"avg_pool{n}d": pooling.MEAN for n in _DIMS},
    **{f"adaptive_max_pool{n}d": pooling.ADAPTIVE_MAX for n in _DIMS},
    **{f"adaptive_avg_pool{n}d": pooling.ADAPTIVE_MEAN for n in _DIMS},
    "linear": elementwise.LINEAR,
    "relu": elementwise.RELU,
    "leaky_relu": elementwise.LEAKY_RELU,
    "sigmoid": elementwise.SIGMOID,
    "tanh": elementwise.TANH,
    "softmax": elementwise.SOFTMAX,
    "log_softmax": elementwise.LOG_SOFTMAX,
    "embedding": elementwise.EMBEDDING,
    "dropout": elementwise.DROPOUT,
    "cross_entropy": loss.CROSS_ENTROPY,
    "nll_loss": loss.NLL,
    "binary_cross_entropy": loss.BINARY,
    "binary_cross_entropy_with_logits": loss.LOGITS,
    "mse_loss": loss.MSE,
    "batch_norm": normalization.BATCH_NORM,
    "instance_norm": normalization.NORM,
    "layer_norm": normalization.NORM,
    "group_norm": normalization.GROUP_NORM,
    "scaled_dot_product_attention": sequence.SCALED_DOT_PRODUCT,
    "rnn_tanh_cell": sequence.TANH_CELL,
    "rnn_relu_cell": sequence.RELU_CELL,
    "lstm_cell": sequence.LSTM,
    "gru_cell": sequence.GRU,
}


def of(name: str) -> tuple[Mistake, ...]:
    """The mistakes that are made with this layer."""
    return TABLES[name]
