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
