"""Products in int8 (W8A8): weights by output, activations by row, sums exact in int32. Lossy: answers may change.

ZeroQuant (2206.01861) found that these two scales need no calibration. The embedding and the head stay as they are: see
docs/int8.md for what that saves. The result of a row never depends on how many other rows are in the call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from umbel.errors import UsageError
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import (
    Int8Products,
    Int8Weights,
    ProductForm,
    as_halves,
    int8_weights,
    panel_order,
    unpack,
    whole_panels,
)
from umbel.kernels.rows import gated_silu
from umbel.linear.base import LinearMethod, Site, Table


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A product with weights in int8; `is_gated`: a gate is behind it."""

    kernels: Int8Products
    weight: Int8Weights
    bias: Tensor | None
    is_gated: bool

    def apply(self, x: Tensor) -> Tensor:
        """Rounds the rows of `x` to int8 too, and multiplies; and the gate."""
        if x.dtype == torch.float32:
            product = self.kernels.multiply(x, self.weight, self.bias, ProductForm.FLOAT32)
            return gated_silu(product) if self.is_gated else product
        form = ProductForm.GATED if self.is_gated else ProductForm.BFLOAT16
        return self.kernels.multiply(x, self.weight, self.bias, form)

    def before_gate(self, x: Tensor) -> Tensor:
        """The same without the gate."""
        packed = self.weight.packed
        if not packed.gated:
            form = ProductForm.FLOAT32 if x.dtype == torch.float32 else ProductForm.BFLOAT16
            return self.kernels.multiply(x, self.weight, self.bias, form)
        whole = replace(self.weight, packed=whole_panels(packed))
        return as_halves(self.kernels.multiply(x, whole, self.bias, ProductForm.BFLOAT16), packed)


@dataclass(frozen=True, slots=True)
class Int8Table:
    """A table in int8, with a scale for each of its rows, which are looked up as `dtype`."""

    kernels: Int8Products
    weight: Int8Weights
    dtype: torch.dtype

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the table, as the floats that they stand for."""
        whole = unpack(self.weight.packed, ids, torch.int8)
        return (whole.to(torch.float32) * self.weight.scale[ids].unsqueeze(1)).to(self.dtype)

    def logits(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Products with all rows; those of `x` are rounded to int8 too."""
        return self.kernels.multiply(x, self.weight, None, ProductForm.FLOAT32, out)


class Int8Method:
    """Weights rounded to int8 by output; tables are those of the method `base`."""

    keeps_weights = False

    def __init__(self, instruction_set: str, base: LinearMethod):
        self.kernels = Int8Products(instruction_set)
        self.base = base

    @classmethod
    def of(cls, site: Site) -> Int8Method:
        """Raises UsageError where nothing multiplies in int8."""
        choice = kernels()
        if choice.native is None or site.device.type != "cpu":
            why = f"{site.device.type}, {choice.reason}"
            raise UsageError(f"linear='int8' needs compiled kernels and a CPU; here: {why}")
        return cls(choice.native.instruction_set, site.dense)

    def convert(self, weight: Tensor, bias: Tensor | None = None, *, gated: bool = False) -> Int8Linear:
        """The weights in int8, with a scale for each output."""
        by_pairs = gated and weight.dtype == torch.bfloat16  # float32 has its gate apart
        ordered = None if bias is None else panel_order(bias, gated=by_pairs)
        return Int8Linear(self.kernels, int8_weights(weight, gated=by_pairs), ordered, gated)

    def convert_table(self, weight: Tensor) -> Table:
        """A table of the method `base`."""
        return self.base.convert_table(weight)
