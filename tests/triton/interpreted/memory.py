"""What Triton's interpreter does not see, watched: which program reads and writes which element of memory.

On a GPU programs run in any order, and side by side, and an access beside a tensor ends the process or reads what lies
there. The interpreter runs one program after the other, and reads whatever is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from triton.runtime import interpreter

NOBODY, SEVERAL = -1, -2


class Memory:
    """The elements of the tensors that a launch was given, and the programs that read and wrote each."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.of_tensors = [addresses(tensor) for tensor in tensors]
        self.all = numpy.unique(numpy.concatenate(self.of_tensors))
        self.readers = numpy.full(self.all.shape, NOBODY)
        self.writers = numpy.full(self.all.shape, NOBODY)

    def places(self, pointers: Any, mask: Any) -> Any:
        """Which of all elements the pointers that are let through point to."""
        wanted = pointers[mask].astype(numpy.int64)
        places = numpy.searchsorted(self.all, wanted)
        is_element = self.all[numpy.minimum(places, self.all.size - 1)] == wanted if self.all.size else wanted != wanted
        assert is_element.all(), f"{(~is_element).sum()} accesses to memory that is none of the tensors'"
        return places

    def load(self, program: int, pointers: Any, mask: Any) -> None:
        places = self.places(pointers, mask)
        assert (self.writers[places] == NOBODY).all(), "a program reads what one of this launch has written"
        others = (self.readers[places] != NOBODY) & (self.readers[places] != program)
        self.readers[places] = numpy.where(others, SEVERAL, program)

    def store(self, program: int, pointers: Any, mask: Any) -> None:
        places = self.places(pointers, mask)
        assert numpy.unique(places).size == places.size, "a program writes an element twice at once"
        for programs, what in ((self.writers, "writes"), (self.readers, "reads")):
            others = (programs[places] != NOBODY) & (programs[places] != program)
            assert not others.any(), f"a program writes what another {what}"
        self.writers[places] = program

    def assert_written_whole(self) -> None:
        """Of a tensor that was written to, no element was forgotten."""
        for of_tensor in self.of_tensors:
            written = self.writers[numpy.searchsorted(self.all, of_tensor)] != NOBODY
            assert written.all() or not written.any(), f"{(~written).sum()} of {written.size} elements are not written"


def addresses(tensor: Tensor) -> Any:
    """Those of a tensor's elements."""
    at = torch.zeros(tensor.shape, dtype=torch.int64)
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        at += (torch.arange(size) * stride).view(-1, *[1] * (tensor.dim() - 1 - dim))
    return (tensor.data_ptr() + at.flatten() * tensor.element_size()).numpy()


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every launch inside fails where programs race, reach beside their tensors, or leave a result unwritten."""
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, call = builder.create_masked_load, builder.create_masked_store, executor.__call__
    memory: list[Memory] = []

    def watch_load(self: Any, ptrs: Any, mask: Any, *rest: Any) -> Any:
        memory[-1].load(self.grid_idx[0], ptrs.data, mask.data)
        return load(self, ptrs, mask, *rest)

    def watch_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        memory[-1].store(self.grid_idx[0], ptrs.data, mask.data)
        return store(self, ptrs, value, mask, *rest)

    def watch_call(self: Any, *args: Any, **kwargs: Any) -> None:
        memory.append(Memory([arg for arg in args if isinstance(arg, Tensor)]))
        try:
            call(self, *args, **kwargs)
            memory[-1].assert_written_whole()
        finally:
            memory.pop()

    with monkeypatch.context() as patched:
        patched.setattr(builder, "create_masked_load", watch_load)
        patched.setattr(builder, "create_masked_store", watch_store)
        patched.setattr(executor, "__call__", watch_call)
        yield
