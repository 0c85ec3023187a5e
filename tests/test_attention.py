"""What attention promises beyond what every layer does: masks, blocks, hints, errors, torch's fast path."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import torchfromscratch.functional as F
from tests.subjects import assert_equal, pull_back, scale
from torchfromscratch import audit, convert, from_scratch, nn
from torchfromscratch.autograd import attention as autograd

HELPFUL = r".{20}"  # a message of more than a word
CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def mask_of(kind: str | None, *shape: int, forbidden: bool = False) -> Tensor | None:
    """A mask of a kind: boolean, with `forbidden` for what True means, or floating-point; no row of it blind."""
    if kind is None:
        return None
    if kind == "float":
        return randn(*shape, seed=7)
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(7)) > 0.4
    allowed[..., 0] = True
    return allowed.logical_not() if forbidden else allowed


def both(call: Callable[[Any], Any], tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Values and gradients of `call` by hand and in torch, with the same random draws."""
    found = []
    for functional in (F, torch.nn.functional):
        torch.manual_seed(0)
        found.append(pull_back(call(functional), tensors))
    return found[0], found[1]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Equal to rounding on the scale of all tensors together: of one key, say, the gradient is rounding alone."""
    allowed = 2**12 * torch.finfo(torch.float64).eps * max(map(scale, theirs))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=allowed, equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(
    batch=st.sampled_from([(), (2,), (2, 1), (1, 2, 2)]),
    heads=st.sampled_from([None, (1, 1), (4, 1), (4, 2), (3, 3)]),
    sizes=st.tuples(*[st.integers(1, 5)] * 4),
    mask=st.sampled_from([None, "bool", "float", "causal"]),
    broadcast_mask=st.booleans(),
    dropout_p=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    factor=st.sampled_from([None, 0.7, 2.0]),
)
def test_scaled_dot_product_attention_is_torchs(
    batch: tuple[int, ...],
    heads: tuple[int, int] | None,
    sizes: tuple[int, int, int, int],
    mask: str | None,
    broadcast_mask: bool,
    dropout_p: float,
    factor: float | None,
) -> None:
    length, sources, features, width = sizes
    of_queries, of_keys = ((*batch, heads[0]), (*batch, heads[1])) if heads else (batch, batch)
    query, key = randn(*of_queries, length, features), randn(*of_keys, sources, features, seed=1)
    value = randn(*of_keys, sources, width, seed=2)
    in_front = () if broadcast_mask else of_queries
    attn_mask = None if mask == "causal" else mask_of(mask, *in_front, length, sources)
    tensors = [tensor for tensor in (query, key, value, attn_mask) if tensor is not None and tensor.requires_grad]
    ours, theirs = both(
        lambda functional: functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, mask == "causal", scale=factor, enable_gqa=heads is not None
        ),
        tensors,
    )
    assert_close(ours, theirs)


@settings(deadline=None, max_examples=60)
@given(
    options=st.fixed_dictionaries(
        {"bias": st.booleans(), "add_bias_kv": st.booleans(), "add_zero_attn": st.booleans()}
        | {"batch_first": st.booleans(), "dropout": st.sampled_from([0.0, 0.4])}
        | {"kdim": st.sampled_from([None, 3]), "vdim": st.sampled_from([None, 5])}
    ),
    heads=st.sampled_from([1, 2, 3]),
    batch=st.sampled_from([None, 1, 2]),
    lengths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    attend_to=st.sampled_from(["itself", "memory", "separate key and value"]),
    mask=st.sampled_from([None, "bool", "float", "per head"]),
    padding=st.sampled_from([None, "bool", "float"]),
    need_weights=st.booleans(),
    average=st.booleans(),
    training=st.booleans(),
)
def test_multihead_attention_is_torchs(
    options: dict[str, Any],
    heads: int,
    batch: int | None,
    lengths: tuple[int, int],
    attend_to: str,
    mask: str | None,
    padding: str | None,
    need_weights: bool,
    average: bool,
    training: bool,
) -> None:
    """Outputs, attention weights and all gradients, with shared weights."""
    length, sources = lengths
    if attend_to != "separate key and value":
        options = options | {"kdim": None, "vdim": None}
    if attend_to == "itself":
        sources = length
    theirs = torch.nn.MultiheadAttention(6, heads, **options).double().train(training)
    ours = nn.MultiheadAttention(6, heads, **options).double().train(training)
    ours.load_state_dict(theirs.state_dict())

    def sequence(length: int, features: int, seed: int) -> Tensor:
        shape = {None: (length,), True: (batch, length), False: (length, batch)}
        return randn(*shape[None if batch is None else options["batch_first"]], features, seed=seed)

    query = sequence(length, 6, 0)
    key = query if attend_to == "itself" else sequence(sources, ours.kdim, 1)
    value = sequence(sources, ours.vdim, 2) if attend_to == "separate key and value" else key
    keywords = {
        "attn_mask": mask_of(mask, length, sources, forbidden=True)
        if mask != "per head"
        else mask_of("bool", (batch or 1) * heads, length, sources, forbidden=True),
        "key_padding_mask": mask_of(padding, *([] if batch is None else [batch]), sources, forbidden=True),
    }
    tensors = [tensor for tensor in {query, key, value, *keywords.values()} if tensor is not None]
    found = []
    for module in (ours, theirs):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on masks of two types
            output = module(query, key, value, need_weights=need_weights, average_attn_weights=average, **keywords)
        assert (output[1] is None) is not need_weights
        found.append(pull_back(output, [*tensors, *module.parameters()]))
    assert_close(*found)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a cache held four rows of P."""
    monkeypatch.setattr(autograd, "LARGEST_KEPT", 1)
    monkeypatch.setattr(autograd, "LARGEST_BLOCK", 1)
    monkeypatch.setattr(autograd, "FEWEST_ROWS", 4)


def attention_with_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    torch.manual_seed(0)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=0.3)


LONG = [(2, 10, 3), (2, 7, 3), (2, 7, 4), (10, 7)]  # ten queries: blocks of four, four and two


@pytest.mark.usefixtures("in_blocks")
def test_blocks_give_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [randn(*shape, seed=seed) for seed, shape in enumerate(LONG)]
    blocks = pull_back(attention_with_mask(*tensors), tensors)
    monkeypatch.undo()
    assert_equal(blocks, pull_back(attention_with_mask(*tensors), tensors))


@pytest.mark.parametrize("lengths", [(10, 7), (5, 12)])
@pytest.mark.usefixtures("in_blocks")
def test_causal_blocks_leave_out_only_what_is_masked(lengths: tuple[int, int]) -> None:
    length, sources = lengths
    tensors = [randn(2, length, 3), randn(2, sources, 3, seed=1), randn(2, sources, 3, seed=2)]
    ours, theirs = both(lambda functional: functional.scaled_dot_product_attention(*tensors, is_causal=True), tensors)
    assert_equal(ours, theirs)


@pytest.mark.usefixtures("in_blocks")
def test_blocks_have_every_derivative() -> None:
    tensors = [randn(*shape, seed=seed) for seed, shape in enumerate(LONG)]
    assert torch.autograd.gradcheck(
        attention_with_mask, tensors, fast_mode=True, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(attention_with_mask, tensors, fast_mode=True, check_fwd_over_rev=True)
    mapped = torch.func.vmap(attention_with_mask, (0, 0, 0, None), randomness="same")(*tensors)
    each = [attention_with_mask(*[tensor[i] for tensor in tensors[:3]], tensors[3]) for i in (0, 1)]
    assert_equal([mapped], [torch.stack(each)])


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.usefixtures("in_blocks")
def test_blocks_keep_no_weights(is_causal: bool) -> None:
    """Nothing that the backward pass keeps has the L·S elements of P."""
    kept = []
    query, key, value = [randn(50, 2, seed=seed) for seed in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda kept: kept):
        F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
    assert kept
    assert all(shape.numel() <= 50 * 2 for shape in kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=["boolean", "additive"])
def test_a_query_that_may_attend_to_nothing_gets_zeros_and_sends_none_back(
    kind: torch.dtype, dtype: torch.dtype
) -> None:
    query, key, value = [randn(3, 4, seed=seed, dtype=dtype) for seed in range(3)]
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    if kind == torch.float32:
        mask = torch.zeros(3, 3).masked_fill(mask.logical_not(), -torch.inf).to(dtype)
    output, *gradients = pull_back(F.scaled_dot_product_attention(query, key, value, mask), [query, key, value])
    assert torch.equal(output[1], torch.zeros(4, dtype=dtype))
    assert torch.equal(gradients[0][1], torch.zeros(4, dtype=dtype))
    assert all([gradient.isfinite().all() for gradient in gradients])


@pytest.mark.parametrize("need_weights", [True, False])
def test_padding_throughout_gives_nan_where_it_does_in_torch(need_weights: bool) -> None:
    ours, theirs = nn.MultiheadAttention(4, 2), torch.nn.MultiheadAttention(4, 2)
    ours.load_state_dict(theirs.state_dict())
    x = randn(3, 2, 4, dtype=torch.float32)
    padding = torch.tensor([[False, True, True], [True, True, True]])
    found = [
        pull_back(module(x, x, x, key_padding_mask=padding, need_weights=need_weights), [x, *module.parameters()])
        for module in (ours, theirs)
    ]
    assert found[0][0].isnan().any() == need_weights
    assert_equal(*found)


def test_scores_of_any_size_do_not_overflow() -> None:
    query, key, value = [randn(3, 4, seed=seed, dtype=torch.float32) for seed in range(3)]
    ours, theirs = both(
        lambda functional: functional.scaled_dot_product_attention(query, key, value, scale=1e4), [query, key, value]
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 0, 3), (2, 4, 3), (2, 4, 5)],
        [(2, 4, 3), (2, 0, 3), (2, 0, 5)],
        [(2, 4, 0), (2, 3, 0), (2, 3, 5)],
        [(0, 4, 3), (0, 3, 3), (0, 3, 5)],
        [(2, 0, 4, 3), (2, 0, 3, 3), (2, 0, 3, 3)],
    ],
    ids=["no queries", "no keys", "no features", "no batch", "no heads"],
)
def test_empty(shapes: list[tuple[int, ...]]) -> None:
    tensors = [randn(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    with sdpa_kernel(SDPBackend.MATH):  # before torch 2.14, flash attention of no heads divides by their number
        ours, theirs = both(lambda functional: functional.scaled_dot_product_attention(*tensors), tensors)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("is_causal", [False, True])
def test_second_derivatives_are_those_of_torchs_plain_attention(is_causal: bool) -> None:
    tensors = [randn(2, 4, 3, seed=seed) for seed in range(3)]
    found = []
    for functional in (F, torch.nn.functional):
        with sdpa_kernel(SDPBackend.MATH):
            output = functional.scaled_dot_product_attention(*tensors, is_causal=is_causal)
        gradients = torch.autograd.grad(output.square().sum(), tensors, create_graph=True)
        found.append(pull_back(gradients, tensors))
    assert_equal(*found)


def test_heads_side_by_side_in_memory_stay_so() -> None:
    """Users view the output (N, H, L, E) as (N, L, H·E) where the query is such a view."""
    query, key, value = [randn(2, 5, 3, 4, seed=seed).transpose(1, 2) for seed in range(3)]
    ours, theirs = [f.scaled_dot_product_attention(query, key, value) for f in (F, torch.nn.functional)]
    assert ours.stride() == theirs.stride()
    assert ours.transpose(1, 2).view(2, 5, 12).shape == (2, 5, 12)


Q, K, V = torch.zeros(2, 3, 4), torch.zeros(2, 5, 4), torch.zeros(2, 5, 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.scaled_dot_product_attention(None, K, V),
        lambda f: f.scaled_dot_product_attention(Q[0, 0], K[0], V[0]),
        lambda f: f.scaled_dot_product_attention(Q, K.double(), V),
        lambda f: f.scaled_dot_product_attention(Q, K, V.to("meta")),
        lambda f: f.scaled_dot_product_attention(Q.long(), K.long(), V.long()),
        lambda f: f.scaled_dot_product_attention(Q.cfloat(), K.cfloat(), V.cfloat()),
        lambda f: f.scaled_dot_product_attention(Q[..., :3], K, V),
        lambda f: f.scaled_dot_product_attention(Q.expand(3, 2, 3, 4)[:, 0], K, V),
        lambda f: f.scaled_dot_product_attention(Q, K, V, torch.ones(3, 5, dtype=torch.bool), is_causal=True),
        lambda f: f.scaled_dot_product_attention(Q, K, V, torch.ones(3, 5, dtype=torch.long)),
        lambda f: f.scaled_dot_product_attention(Q, K, V, torch.ones(3, 5, dtype=torch.double)),
        lambda f: f.scaled_dot_product_attention(Q, K, V, torch.ones(2, 5)),
        lambda f: f.scaled_dot_product_attention(Q, K, V, torch.ones(7, 3, 5)),
        lambda f: f.scaled_dot_product_attention(Q, K, V, dropout_p=1.5),
        lambda f: f.scaled_dot_product_attention(
            Q.expand(5, 2, 3, 4).mT.mT.transpose(0, 1), *[K[:, None].expand(2, 2, 5, 4)] * 2, enable_gqa=True
        ),
        lambda f: f.scaled_dot_product_attention(Q[0], K[0], V[0], enable_gqa=True),
    ],
    ids=[
        "no tensor",
        "one dimension",
        "types",
        "devices",
        "integers",
        "complex",
        "features",
        "batch",
        "mask and causal",
        "mask of integers",
        "mask of another type",
        "mask too small",
        "mask too large",
        "dropout",
        "groups that do not divide",
        "groups without heads",
    ],
)
def test_errors_of_scaled_dot_product_attention_are_torchs(call: Callable[[Any], Any]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011
        call(torch.nn.functional)
    with pytest.raises(expected.type, match=HELPFUL):
        call(F)


X = torch.zeros(4, 2, 6)
SQUARE = torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("options", "inputs", "keywords"),
    [
        ({}, (X[None],) * 3, {}),
        ({}, (X, X[0], X[0]), {}),
        ({}, (X[0], X, X), {}),
        ({}, (X[..., :4],) * 3, {}),
        ({}, (X, X, X[:3]), {}),
        ({"kdim": 3, "vdim": 3}, (X, X[..., :3], X[:2, :, :3]), {}),
        ({}, (X, X[:, :1], X[:, :1]), {}),
        ({}, (X, X, X), {"attn_mask": SQUARE[:2]}),
        ({}, (X, X, X), {"attn_mask": SQUARE[0]}),
        ({}, (X, X, X), {"attn_mask": SQUARE.expand(3, 4, 4)}),
        ({}, (X[:, 0],) * 3, {"attn_mask": SQUARE.expand(3, 4, 4)}),
        ({}, (X, X, X), {"attn_mask": SQUARE.long()}),
        ({}, (X, X, X), {"attn_mask": SQUARE.double()}),
        ({}, (X, X, X), {"key_padding_mask": SQUARE[0]}),
        ({}, (X, X, X), {"key_padding_mask": SQUARE[:3]}),
        ({}, (X, X, X), {"key_padding_mask": SQUARE[:2, :3]}),
        ({}, (X[:, 0],) * 3, {"key_padding_mask": SQUARE}),
        ({}, (X, X, X), {"key_padding_mask": SQUARE[:2].long()}),
        ({}, (X, X, X), {"is_causal": True}),
        ({}, (X.double(),) * 3, {}),
    ],
)
def test_errors_of_multihead_attention_are_torchs(
    options: dict[str, Any], inputs: tuple[Tensor, ...], keywords: dict[str, Any]
) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011
        torch.nn.MultiheadAttention(6, 2, **options)(*inputs, **keywords)
    with pytest.raises(expected.type, match=HELPFUL):
        nn.MultiheadAttention(6, 2, **options)(*inputs, **keywords)


@pytest.mark.parametrize(
    "changes",
    [
        {"in_proj_weight": None},
        {"use_separate_proj_weight": True},
        {"bias_k": torch.zeros(1, 1, 6)},
        {"bias_v": torch.zeros(1, 1, 6)},
        {"bias_k": torch.zeros(1, 1, 6), "bias_v": torch.zeros(1, 1, 6), "static_k": torch.zeros(4, 4, 3)},
        {"static_k": torch.zeros(3, 4, 3)},
        {"static_v": torch.zeros(4, 4, 2)},
        {"num_heads": 4},
        {"embed_dim_to_check": 5},
    ],
    ids=str,
)
def test_errors_of_multi_head_attention_forward_are_torchs(changes: dict[str, Any]) -> None:
    keywords = {"embed_dim_to_check": 6, "num_heads": 2, "in_proj_weight": torch.zeros(18, 6)}
    keywords |= {"in_proj_bias": None, "bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0}
    keywords |= {"out_proj_weight": torch.zeros(6, 6), "out_proj_bias": None} | changes
    with pytest.raises(Exception) as expected:  # noqa: PT011
        torch.nn.functional.multi_head_attention_forward(X, X, X, **keywords)
    with pytest.raises(expected.type, match=HELPFUL):
        F.multi_head_attention_forward(X, X, X, **keywords)


@pytest.mark.parametrize("need_weights", [True, False])
def test_static_keys_and_values_are_torchs(need_weights: bool) -> None:
    x, weight, out = randn(4, 2, 6), randn(18, 6, seed=1), randn(6, 6, seed=2)
    static = [randn(4, 5, 3, seed=seed) for seed in (3, 4)]
    ours, theirs = both(
        lambda functional: functional.multi_head_attention_forward(
            *(x, x, x, 6, 2, weight, None, None, None, True, 0.0, out, None),
            need_weights=need_weights,
            static_k=static[0],
            static_v=static[1],
        ),
        [x, weight, out, *static],
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize("tuned", ["v_proj_weight", "q_proj_weight"])
def test_weights_require_a_gradient_where_torchs_do(tuned: str) -> None:
    query, value = torch.randn(3, 4), torch.randn(3, 6)
    for namespace in (torch.nn, nn):
        attention = namespace.MultiheadAttention(4, 2, kdim=4, vdim=6).requires_grad_(False)
        getattr(attention, tuned).requires_grad_(True)
        output, weights = attention(query, query, value)
        assert output.requires_grad
        assert weights.requires_grad == (tuned == "q_proj_weight")


def test_masks_of_two_types_warn_once_as_in_torch() -> None:
    for module in (torch.nn.MultiheadAttention(6, 2), nn.MultiheadAttention(6, 2)):
        with pytest.warns(UserWarning, match="deprecated. Use same type for both instead") as caught:
            module(X, X, X, attn_mask=SQUARE, key_padding_mask=torch.zeros(2, 4, dtype=torch.bool))
        assert len(caught) == 1


def test_nested_tensors_are_refused_with_what_to_do() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.zeros(2, 6), torch.zeros(3, 6)])
    with pytest.raises(AssertionError, match="pad them"):
        nn.MultiheadAttention(6, 2, batch_first=True)(nested, nested, nested)
    with pytest.raises(NotImplementedError, match="pad it"):
        F.scaled_dot_product_attention(nested, nested, nested)


def transformers(**options: Any) -> Iterator[tuple[str, Callable[[Any], torch.nn.Module]]]:
    """The family's modules by name, each as a function of the namespace that it comes from."""
    yield "MultiheadAttention", lambda m: m.MultiheadAttention(8, 2, batch_first=options.get("batch_first", False))
    yield "TransformerEncoderLayer", lambda m: m.TransformerEncoderLayer(8, 2, 16, **options)
    yield "TransformerDecoderLayer", lambda m: m.TransformerDecoderLayer(8, 2, 16, **options)
    yield "TransformerEncoder", lambda m: m.TransformerEncoder(m.TransformerEncoderLayer(8, 2, 16, **options), 2)
    yield "TransformerDecoder", lambda m: m.TransformerDecoder(m.TransformerDecoderLayer(8, 2, 16, **options), 2)
    yield "Transformer", lambda m: m.Transformer(8, 2, 1, 1, 16, **options)


MODULES = dict(transformers(batch_first=True))


def arguments(name: str) -> tuple[Tensor, ...]:
    x, memory = randn(2, 4, 8, dtype=torch.float32), randn(2, 3, 8, seed=1, dtype=torch.float32)
    return {"MultiheadAttention": (x, x, x), "TransformerEncoderLayer": (x,), "TransformerEncoder": (x,)}.get(
        name, (x, memory)
    )


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", MODULES)
def test_every_part_is_ours_with_torchs_names_and_initial_values(name: str) -> None:
    torch.manual_seed(0)
    ours = MODULES[name](nn)
    torch.manual_seed(0)
    theirs = MODULES[name](torch.nn)
    for (label, part), other in zip(ours.named_modules(), theirs.modules(), strict=True):
        assert isinstance(part, type(other))
        computes = not isinstance(other, torch.nn.ModuleList) and not label.endswith("out_proj")
        assert type(part).__module__.startswith("torchfromscratch") == computes, label
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], tensor), key
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("grad", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize("name", MODULES)
def test_inference_equals_torchs_fast_path_and_never_takes_it(name: str, grad: bool) -> None:
    theirs, ours = MODULES[name](torch.nn).eval(), MODULES[name](nn).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.set_grad_enabled(grad):
        expected = theirs(*arguments(name))
        with audit():
            found = ours(*arguments(name))
    torch.testing.assert_close(found, expected)


def test_padding_in_inference_equals_torchs_fast_path_but_for_the_padding() -> None:
    """torch.nn's encoder packs the sequences there and gives zeros for what it left out."""
    theirs = MODULES["TransformerEncoder"](torch.nn).eval()
    ours = MODULES["TransformerEncoder"](nn).eval()
    ours.load_state_dict(theirs.state_dict())
    (x,) = arguments("TransformerEncoder")
    padding = torch.tensor([[False, False, False, True], [False, False, True, True]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on nested tensors
        expected = theirs(x, src_key_padding_mask=padding)
        found = ours(x, src_key_padding_mask=padding)
    torch.testing.assert_close(found[padding.logical_not()], expected[padding.logical_not()])


@settings(deadline=None, max_examples=25)
@given(
    options=st.fixed_dictionaries(
        {"norm_first": st.booleans(), "batch_first": st.booleans(), "bias": st.booleans()}
        | {"activation": st.sampled_from(["relu", "gelu", torch.tanh, torch.nn.functional.gelu, torch.nn.Tanh()])}
        | {"dropout": st.sampled_from([0.0, 0.3]), "layer_norm_eps": st.sampled_from([1e-5, 0.1])}
    ),
    name=st.sampled_from(["TransformerEncoderLayer", "TransformerDecoderLayer"]),
    masks=st.booleans(),
    training=st.booleans(),
)
def test_transformer_layers_are_torchs(options: dict[str, Any], name: str, masks: bool, training: bool) -> None:
    build = dict(transformers(**options))[name]
    theirs, ours = build(torch.nn).double().train(training), build(nn).double().train(training)
    ours.load_state_dict(theirs.state_dict())
    inputs = [randn(3, 3, 8, seed=seed) for seed in range(2 if "Decoder" in name else 1)]
    kind = "tgt" if "Decoder" in name else "src"
    padding = torch.tensor([[False, False, True]] * 3)
    keywords = {f"{kind}_mask": CAUSAL(3) == -torch.inf, f"{kind}_key_padding_mask": padding} if masks else {}
    found = []
    for module in (ours, theirs):
        torch.manual_seed(0)
        found.append(pull_back(module(*inputs, **keywords), [*inputs, *module.parameters()]))
    assert_close(*found)


@pytest.mark.parametrize("need_weights", [True, False])
def test_causal_hint_is_torchs(need_weights: bool) -> None:
    theirs, ours = torch.nn.MultiheadAttention(6, 2).double(), nn.MultiheadAttention(6, 2).double()
    ours.load_state_dict(theirs.state_dict())
    x = randn(4, 2, 6)
    found = [
        pull_back(
            module(x, x, x, attn_mask=CAUSAL(4, dtype=x.dtype), is_causal=True, need_weights=need_weights),
            [x, *module.parameters()],
        )
        for module in (ours, theirs)
    ]
    assert_equal(*found)


@pytest.mark.parametrize("name", MODULES)
def test_a_converted_model_runs_by_hand(name: str) -> None:
    model = convert(MODULES[name](torch.nn))
    with audit():
        output = model(*arguments(name))
        (output[0] if isinstance(output, tuple) else output).sum().backward()


def test_layers_of_torch_in_an_encoder_are_copied_by_hand() -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2)
    assert type(layer) is torch.nn.TransformerEncoderLayer
    assert {type(part) for part in encoder.layers} == {nn.TransformerEncoderLayer}
    with audit():
        encoder(*arguments("TransformerEncoder"))


def test_an_encoder_layer_errs_no_more_than_torchs_on_average() -> None:
    """Of one draw the largest error behind so many layers is luck; over 40 it is not."""
    errors = torch.zeros(2, 14)
    for seed in range(40):
        torch.manual_seed(seed)
        weights = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0).state_dict()
        input, cotangent = torch.randn(3, 2, 4), torch.randn(3, 2, 4)

        def step(library: Any, dtype: torch.dtype) -> list[Tensor]:
            layer = library.TransformerEncoderLayer(4, 2, 8, dropout=0.0).to(dtype)
            layer.load_state_dict(weights)  # noqa: B023
            x = input.to(dtype).requires_grad_()  # noqa: B023
            output = layer(x)
            return [output, *torch.autograd.grad(output, [x, *layer.parameters()], cotangent.to(dtype))]  # noqa: B023

        truth = step(torch.nn, torch.float64)
        for row, library in enumerate((nn, torch.nn)):
            answer = step(library, torch.float32)
            errors[row] += torch.tensor([(a - t).abs().max().item() for a, t in zip(answer, truth, strict=True)])
    ours, theirs = errors
    assert (ours <= 1.5 * theirs).all(), ours / theirs


@pytest.mark.parametrize(("mask_check", "kind"), [(True, torch.bool), (False, torch.float32)], ids=str)
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("enable_nested_tensor", [True, False])
@pytest.mark.parametrize("when", ["evaluated", "evaluated with gradients", "evaluated with a mask", "trained"])
@pytest.mark.parametrize(
    ("how", "batch_first"),
    [("built", True), ("built", False), ("converted", True), ("inside", True), ("inside", False)],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:enable_nested_tensor is True")
def test_padding_that_torchs_encoder_leaves_out(
    how: str,
    batch_first: bool,
    when: str,
    enable_nested_tensor: bool,
    with_norm: bool,
    mask_check: bool,
    kind: torch.dtype,
) -> None:
    """Evaluated without gradients, torch's computes nothing there, and its last norm makes its bias of that."""
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    padding = padding if kind == torch.bool else torch.zeros(2, 5).masked_fill(padding, -torch.inf)
    mask = torch.zeros(5, 5, dtype=kind) if when == "evaluated with a mask" else None

    def answer(nn: Any, finish: Callable[[Any], Any] = lambda model: model) -> Tensor:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=batch_first)
        norm = nn.LayerNorm(4) if with_norm else None
        model = finish(nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor, mask_check))
        for parameter in model.parameters():
            torch.nn.init.uniform_(parameter, -1, 1)
        model.train(when == "trained")
        with torch.set_grad_enabled(when in ("trained", "evaluated with gradients")):
            x = torch.randn(2, 5, 4) if batch_first else torch.randn(5, 2, 4)
            return model(x, mask, padding)

    expected = answer(torch.nn)
    with from_scratch() if how == "inside" else contextlib.nullcontext(), audit():
        found = (
            answer(nn) if how == "built" else answer(torch.nn, convert if how == "converted" else lambda model: model)
        )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", ["MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:enable_nested_tensor is True")
def test_nested_tensors_inside_from_scratch_go_to_torch(
    name: str, batch_first: bool, training: bool, grad: bool
) -> None:
    """Whose fast path alone takes them."""
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=batch_first)
    modules = {"MultiheadAttention": layer.self_attn, "TransformerEncoderLayer": layer}
    module = modules.get(name, torch.nn.TransformerEncoder(layer, 2)).train(training)
    nested = torch.nested.nested_tensor([randn(2, 4).float(), randn(3, 4).float()])

    def answer() -> Tensor | str:
        try:
            output = module(nested, nested, nested) if name == "MultiheadAttention" else module(nested)
        except AssertionError as error:
            return str(error)
        return (output[0] if isinstance(output, tuple) else output).to_padded_tensor(0.0)

    with torch.set_grad_enabled(grad):
        expected = answer()
        with from_scratch():
            found = answer()
    assert isinstance(expected, str) != (batch_first and not training and not grad)
    assert found == expected if isinstance(expected, str) else torch.equal(found, expected)


def test_fast_paths_are_torchs_own_again_outside_of_from_scratch() -> None:
    forwards = [torch.nn.MultiheadAttention.forward, torch.nn.TransformerEncoder.forward]
    with from_scratch():
        thread = threading.Thread(target=lambda: from_scratch()(lambda: None)())
        thread.start()
        thread.join()
        assert torch.nn.TransformerEncoder.forward is not forwards[1]
    assert [torch.nn.MultiheadAttention.forward, torch.nn.TransformerEncoder.forward] == forwards


@pytest.mark.parametrize("activation", [F.relu, torch.nn.functional.relu], ids=["F.relu", "torch's F.relu"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("name", ["Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer"])
def test_a_copied_transformer_keeps_an_activation_of_either_namespace(
    name: str, converted: bool, copied: Callable[[Any], Any], activation: Callable[[Tensor], Tensor]
) -> None:
    build = dict(transformers(activation=activation, dropout=0.0, batch_first=True))[name]
    module = convert(build(torch.nn)) if converted else build(nn)
    twin, inputs = copied(module), arguments(name)
    activations = [part.activation for part in twin.modules() if hasattr(part, "activation")]
    assert activations
    assert all([function is activation for function in activations])
    with audit():
        torch.testing.assert_close(twin(*inputs), module(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_with_our_activation_leaves_out_what_torchs_with_its_own_does(name: str) -> None:
    x, padding = randn(2, 3, 4, dtype=torch.float32), torch.tensor([[False] * 3, [False, True, True]])

    def answer(library: Any, functional: Any) -> Tensor:
        torch.manual_seed(0)
        layer = library.TransformerEncoderLayer(4, 2, 8, activation=getattr(functional, name), batch_first=True)
        with torch.no_grad():
            return library.TransformerEncoder(layer, 1).eval()(x, src_key_padding_mask=padding)

    torch.testing.assert_close(answer(nn, F), answer(torch.nn, torch.nn.functional))
