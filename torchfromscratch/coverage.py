"""How each public name of torch.nn and torch.nn.functional is answered for: by hand, composed, or with torch's own."""

from __future__ import annotations

import types
from typing import Any, NamedTuple

import torch.nn
import torch.nn.functional

from torchfromscratch import functional, nn

__all__ = ["HELPERS", "Name", "as_markdown", "coverage"]

NAMESPACES: dict[str, tuple[types.ModuleType, types.ModuleType]] = {
    "torch.nn": (torch.nn, nn),
    "torch.nn.functional": (torch.nn.functional, functional),
}

# What the two modules import for themselves, and what they tell torch's documentation.
HELPERS = {
    *("BroadcastingList1", "BroadcastingList2", "BroadcastingList3", "Callable", "DType", "Optional", "Tensor"),
    *("assert_int_or_pair", "boolean_dispatch", "handle_torch_function"),
    *("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"),
}

# Functions without a Function of their own, and what they are made of.
COMPOSED = {
    "conv_tbc": "conv1d",
    "cosine_embedding_loss": "dot products, squares and hinges",
    "cosine_similarity": "norms, quotients and a dot product",
    "gumbel_softmax": "softmax of noise",
    "hinge_embedding_loss": "hinges and masks",
    "local_response_norm": "sums over channels and a power",
    "lp_pool1d": "powers, averages and roots",
    "lp_pool2d": "powers, averages and roots",
    "lp_pool3d": "powers, averages and roots",
    "margin_ranking_loss": "a product and a hinge",
    "multi_head_attention_forward": "linear, softmax and products",
    "multi_margin_loss": "margins, hinges and masks",
    "multilabel_soft_margin_loss": "binary cross-entropy of logits",
    "native_channel_shuffle": "channel_shuffle",
    "normalize": "norms and quotients",
    "one_hot": "zeros and ones",
    "pairwise_distance": "a norm",
    "relu6": "hardtanh",
    "softmin": "softmax",
    "triplet_margin_loss": "norms and a hinge",
    "triplet_margin_with_distance_loss": "norms and a hinge",
    "upsample": "interpolate",
    "upsample_bilinear": "interpolate",
    "upsample_nearest": "interpolate",
}


class Name(NamedTuple):
    """A public name and how it is answered for."""

    name: str
    way: str


def coverage(namespace: str) -> list[Name]:
    """Every public name that the installed torch has in the namespace, in the alphabet's order."""
    theirs, ours = NAMESPACES[namespace]
    return [Name(name, _way(name, getattr(theirs, name), ours)) for name in _public(theirs)]


def as_markdown() -> str:
    """A table for each namespace."""
    lines: list[str] = []
    for namespace in NAMESPACES:
        names = coverage(namespace)
        lines += ["", f"## {namespace}", "", "| name | |", "| --- | --- |"]
        lines += [f"| {name} | {way} |" for name, way in names]
    return "\n".join(lines[1:]) + "\n"


def _public(module: types.ModuleType) -> list[str]:
    """The classes and functions of torch's, without an underscore in front."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in HELPERS and callable(value) and _is_torchs(value)
    )


def _is_torchs(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "torch").startswith("torch")


def _way(name: str, theirs: Any, ours: types.ModuleType) -> str:
    found = getattr(ours, name, None)
    if found is None:
        return "missing"
    if found is theirs:
        return "torch's own"
    return f"composed of {COMPOSED[name]}" if name in COMPOSED else "by hand"
