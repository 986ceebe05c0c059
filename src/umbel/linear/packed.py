"""Products in bfloat16 or float32 by compiled kernels, with weights packed once in the order in which they are read.

Sums are in float32, and logits stay there. The result of a row never depends on how many other rows are in the call,
to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.kernels.native.products import (
    FORMS,
    FloatProducts,
    Packed,
    PackedPair,
    PackedPart,
    ProductForm,
    as_halves,
    make_out,
    pack,
    panel_order,
    unpack,
    whole_panels,
)
from umbel.linear.base import Linear


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A product with packed weights; `bias` is in the order of the panels."""

    kernels: FloatProducts
    weight: Packed
    bias: Tensor | None

    def apply(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`, with the gate behind it where the weights are packed for one."""
        plain, gated = FORMS[self.kernels.dtype]
        return self.kernels.multiply(x, self.weight, self.bias, gated if self.weight.gated else plain)

    def before_gate(self, x: Tensor) -> Tensor:
        """The same without the gate."""
        if not self.weight.gated:
            return self.apply(x)
        whole, (plain, _) = whole_panels(self.weight), FORMS[self.kernels.dtype]
        return as_halves(self.kernels.multiply(x, whole, self.bias, plain), self.weight)


Pair = tuple[int, int, Linear, Sequence[tuple[int, int, Linear]]]
"""The first row and the one behind the last, a product of theirs, and of each part of what that makes where it begins,
where the outputs begin that it is added to, and its product."""


def add_packed(product: Tensor, x: Tensor, pairs: Sequence[Pair]) -> bool:
    """Add to `product`, in place, what pairs of packed products make of rows of `x`. False, and nothing is done, where
    they are other products."""
    packed = list[PackedPair]()
    kernels: FloatProducts | None = None
    for begin, end, down, parts in pairs:
        ups = tuple(PackedPart(at, to, up.weight) for at, to, up in parts if isinstance(up, PackedLinear))
        if not isinstance(down, PackedLinear) or len(ups) < len(parts):
            return False
        kernels = down.kernels
        packed.append(PackedPair(begin, end, down.weight, ups))
    if kernels is None or not (x.is_contiguous() and product.is_contiguous()):
        return False
    kernels.add_pairs(x, product, packed)
    return True


AT_A_TIME = 512  # rows that products pass a panel with: so many sums are added to while caches have them


def gated_with(base: Linear, x: Tensor, pairs: Sequence[Pair]) -> Tensor | None:
    """What `base` makes of `x` when what `pairs` make of it is added before the gate; None where they are other
    products. Rows of no pair get the bits that `base` gives alone."""
    if not isinstance(base, PackedLinear) or not base.weight.gated:
        return None
    out = make_out(base.weight, len(x), form := FORMS[base.kernels.dtype][1])
    added = x.new_empty((min(len(x), AT_A_TIME), base.weight.outputs))
    for low in range(0, len(x), AT_A_TIME):
        some = x[low : low + AT_A_TIME]
        here = added[: len(some)].fill_(-0.0)  # which changes no number
        mine = _within(pairs, low, low + len(some))
        if mine and not add_packed(here, some, mine):
            return None
        base.kernels.multiply(some, base.weight, base.bias, form, out[low : low + len(some)], here if mine else None)
    return out


def _within(pairs: Sequence[Pair], low: int, high: int) -> list[Pair]:
    """Pairs of rows `low` to `high` alone, counted from there."""
    there = ((pair, max(pair[0], low) - low, min(pair[1], high) - low) for pair in pairs)
    return [(begin, end, pair[2], pair[3]) for pair, begin, end in there if begin < end]


@dataclass(frozen=True, slots=True)
class PackedTable:
    """A packed table; single rows are picked out of the panels, so that one copy serves both ends of a model."""

    kernels: FloatProducts
    weight: Packed

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the table, unpacked."""
        return unpack(self.weight, ids, self.kernels.dtype)

    def logits(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Products with all rows, summed in float32."""
        return self.kernels.multiply(x, self.weight, None, ProductForm.FLOAT32, out)


class PackedMethod:
    """Weights in panels, in the order in which the kernels read them."""

    keeps_weights = False

    def __init__(self, instruction_set: str, dtype: torch.dtype):
        self.kernels = FloatProducts(instruction_set, dtype)

    def convert(self, weight: Tensor, bias: Tensor | None = None, *, gated: bool = False) -> PackedLinear:
        """Panels of the weights, gate and other half of a gated product in turn."""
        bias = None if bias is None else panel_order(bias, gated=gated)
        return PackedLinear(self.kernels, pack(weight, gated=gated), bias)

    def convert_table(self, weight: Tensor) -> PackedTable:
        """Panels of the weights."""
        return PackedTable(self.kernels, pack(weight))
