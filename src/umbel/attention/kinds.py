"""The layers of a model by what a step is laid out for: laid out once for all layers that are alike in that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from umbel.ir.kv_shape import KVShape

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class LayerKinds(Generic[Kind]):
    """The distinct `kinds` of layers, which of them each layer is (`of_layer`), and the share of the bytes of a token's
    KV that the layers of each kind hold (`kv_shares`)."""

    kinds: tuple[Kind, ...]
    of_layer: tuple[int, ...]
    kv_shares: tuple[float, ...]

    @classmethod
    def of(cls, shapes: Sequence[KVShape], kind_of: Callable[[KVShape], Kind]) -> LayerKinds[Kind]:
        """The layers whose attention is `shapes`, told apart by what `kind_of` gives for them."""
        each = [kind_of(shape) for shape in shapes]
        kinds = tuple(dict.fromkeys(each))
        of_layer = tuple(map(kinds.index, each))
        held = [0] * len(kinds)
        for shape, kind in zip(shapes, of_layer, strict=True):
            held[kind] += shape.stored_numbers
        return cls(kinds, of_layer, tuple(numbers / sum(held) for numbers in held))

    def mean_read(self, reads: Sequence[int]) -> int:
        """KV tokens that a layer reads, from those that a layer of each kind reads: the mean over layers, each counted
        by the bytes that a token takes there."""
        if len(reads) == 1:
            return reads[0]
        return round(sum(read * share for read, share in zip(reads, self.kv_shares, strict=True)))
