"""Counts what torch is really asked to do: products, weights read, KV written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from umbel.models.decoder import Decoder

aten = torch.ops.aten


class Counting(TorchDispatchMode):
    """While entered: `dense` and `batched` FLOPs (a multiplication and an addition each), bytes of the decoder's
    weights that any operation read as a whole (`weights`, by address), bytes written into KV slots (`stored`)."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.dense = 0
        self.batched = 0
        self.stored = 0
        self.weights: dict[int, int] = {}
        self._known = {t.data_ptr(): t.nbytes for t in tensors_of(decoder)}  # experts share a storage
        self._storages = {t.untyped_storage().data_ptr() for t in tensors_of(decoder)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in (aten.mm, aten.addmm, aten.linear):
            x = args[1] if packet is aten.addmm else args[0]
            self.dense += 2 * x.numel() * out.shape[-1]
        elif packet in (aten.bmm, aten.baddbmm):
            x = args[1] if packet is aten.baddbmm else args[0]
            self.batched += 2 * x.numel() * out.shape[-1]
        elif packet is aten.matmul:
            raise AssertionError("a product that is not counted")
        elif packet is aten.index_copy_:
            self.stored += args[3].nbytes
        idle = isinstance(out, Tensor) and (out.numel() == 0 or out.untyped_storage().data_ptr() in self._storages)
        if packet is not aten.embedding and not idle:  # embedding reads single rows; a view reads nothing
            self._note([*args, *(kwargs or {}).values()])
        return out

    def _note(self, values: list[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                place = value.data_ptr()
                if place in self._known:
                    self.weights[place] = self._known[place]
            elif isinstance(value, (list, tuple)):
                self._note(list(value))


def tensors_of(decoder: Decoder) -> list[Tensor]:
    """Every weight, each once."""
    return list(_tensors((decoder.embedding, decoder.final_norm, decoder.head, decoder.layers)))


def _tensors(part: Any) -> Iterator[Tensor]:
    """The tensors of a record and of the records in it."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from _tensors(each)
    else:
        for name in getattr(part, "__slots__", ()):
            yield from _tensors(getattr(part, name))
