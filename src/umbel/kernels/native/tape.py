"""Calls of compiled kernels that are recorded once and run again by one call: what CUDA graphs are on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from umbel.kernels.native.calls import INSTRUCTION_SETS

if INSTRUCTION_SETS:
    from umbel.kernels.native import _umbel

T = TypeVar("T")

CHUNK = 1 << 20  # bytes
_LINE = 64
_MAKES = ("aten::empty", "aten::empty_like", "aten::new_empty")


class TapeMemory:
    """The memory of what recorded calls make. Tapes that never run at once may have the same."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []
        self._at = self._used = 0  # the chunk, and its bytes that are taken

    def begin(self) -> None:
        """Give everything out again, for another tape."""
        self._at = self._used = 0

    def take(self, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        """A tensor of it."""
        shape = tuple(shape)
        size = math.prod(shape) * dtype.itemsize
        while self._at < len(self._chunks) and self._used + size > len(self._chunks[self._at]):
            self._at, self._used = self._at + 1, 0
        if self._at == len(self._chunks):
            self._chunks.append(torch.empty(max(CHUNK, size), dtype=torch.uint8))
        begin, self._used = self._used, self._used + -(-size // _LINE) * _LINE
        return self._chunks[self._at][begin : begin + size].view(dtype).view(shape)


class Tape:
    """Compiled kernels' calls with the memory that they read and write. Whatever is given to them must stay where it
    is; numbers may be others when they run again, sizes may not."""

    def __init__(self, memory: TapeMemory):
        self._calls, self._memory = _umbel.Tape(), memory

    def record(self, act: Callable[[], T]) -> T | None:
        """Have `act` call kernels, and keep these calls. None where torch computed something too, so that the calls
        alone are not all of it."""
        self._memory.begin()
        watch = _Watch(self._memory)
        self._calls.begin()
        try:
            with watch:
                result = act()
        finally:
            self._calls.end()
        return None if watch.has_computed else result

    def run(self) -> None:
        """Call the kernels again."""
        self._calls.run()


class _Watch(TorchDispatchMode):
    """Gives tensors that are to be filled a place in the memory of a tape, and sees what torch computes."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keeps torch from wrapping the method below, at whose first call it would import its compiler for a second."""
        return False

    def __init__(self, memory: TapeMemory):
        super().__init__()
        self.memory, self.has_computed = memory, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each of its operations."""
        result = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in _MAKES and result.device.type == "cpu" and result.is_contiguous():
            return self.memory.take(result.shape, result.dtype)
        self.has_computed |= func._schema.is_mutable or not _looks_at(result, args[:1])
        return result


def _looks_at(result: Any, given: Any) -> bool:
    """Whether results are but other views of what was given first."""
    places = {each.untyped_storage().data_ptr() for each in given if isinstance(each, Tensor)}
    results = result if isinstance(result, list | tuple) else (result,)
    return all(isinstance(each, Tensor) and each.untyped_storage().data_ptr() in places for each in results)
