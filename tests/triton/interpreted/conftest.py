"""These tests need Triton's interpreter: `tests/triton/test_interpreted.py` runs them in processes that have it."""

from collections.abc import Iterator

import pytest

import torchfromscratch
from torchfromscratch.kernels.triton import IS_INTERPRETED

collect_ignore_glob = [] if IS_INTERPRETED else ["test_*.py"]


@pytest.fixture(autouse=True)
def _by_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that has a kernel in Triton is computed by it, and every access to memory is watched."""
    from tests.triton.interpreted.memory import watched

    with torchfromscratch.algorithm("triton"), watched(monkeypatch):
        yield
