"""Proof that a kernel ran."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.names.add(str(function).removesuffix(".default"))
        return function(*args, **(kwargs or {}))


@contextmanager
def called(*names: str) -> Iterator[None]:
    """Fails unless each of the operations `torchfromscratch::triton_<name>` is called inside."""
    with _Seen() as seen:
        yield
    for name in names:
        assert f"torchfromscratch.triton_{name}" in seen.names, f"{name} was not computed by Triton's kernel"
