"""Products with weights in 4 bits, as a checkpoint has them or rounded as they are loaded.

A checkpoint may have them (GPTQ 2210.17323, AWQ 2306.00978): products are then exactly those of the weights that
nibbles stand for, in the compute type (W4A16). A GPU keeps them packed, and a kernel widens them as it multiplies; a
processor is handed the floats, once, and saves nothing. Asked for by name, which is lossy, floats are rounded to the
nearest nibbles, and a processor multiplies in int8 (W4A8, after QQQ, 2406.09904): weights stay packed in memory, rows
are rounded to int8 by group. The embedding and the head stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.errors import UsageError
from umbel.ir.int4_format import LOADING
from umbel.kernels.dispatch import gpu_kernels, kernels
from umbel.kernels.int4 import Int4Weight, round_to_int4
from umbel.kernels.native.products import as_halves, panel_order, whole_panels
from umbel.kernels.native.products_int4 import Int4Panels, Int4Products, int4_panels
from umbel.kernels.rows import gated_silu
from umbel.linear.base import LinearMethod, Product, Site, Table

FEW_ROWS = 64
"""Rows up to which the kernel multiplies from nibbles; more are worth widening all weights first. A guess until it is
measured on a GPU: the point where arithmetic, not reading weights, takes the time."""


@dataclass(frozen=True, slots=True)
class Int4Linear:
    """A product with weights in int4; `is_gated`: a gate is behind it."""

    weight: Int4Weight
    bias: Tensor | None
    is_gated: bool

    def apply(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`, and the gate."""
        product = self.before_gate(x)
        return gated_silu(product) if self.is_gated else product

    def before_gate(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`."""
        if gpu_kernels() is None:
            return F.linear(x, self.weight.floats(x.dtype), self.bias)
        from umbel.kernels.triton.int4 import multiply_int4, widen  # here, as not every machine has Triton

        if x.shape[0] > FEW_ROWS:
            return F.linear(x, widen(self.weight, x.dtype), self.bias)
        product = multiply_int4(x, self.weight)
        return product if self.bias is None else product + self.bias


@dataclass(frozen=True, slots=True)
class Int4PanelLinear:
    """A product of a processor with nibbles in panels; `bias` is in their order."""

    kernels: Int4Products
    weight: Int4Panels
    bias: Tensor | None

    def apply(self, x: Tensor) -> Tensor:
        """Rounds the rows of `x` to int8 by group, and multiplies; and the gate."""
        return self.kernels.multiply(x, self.weight, self.bias)

    def before_gate(self, x: Tensor) -> Tensor:
        """The same without the gate."""
        packed = self.weight.packed
        if not packed.gated:
            return self.apply(x)
        whole = Int4Panels(whole_panels(packed), self.weight.group)
        return as_halves(self.kernels.multiply(x, whole, self.bias), packed)


class Int4Method:
    """Weights in int4; tables, and products that are not, are those of the method `base`. `rounds`: floats become int4.
    What stays floats is of `dtype`. `products`: those of a processor from nibbles, None where it is to have floats."""

    keeps_weights = False

    def __init__(self, dtype: torch.dtype, base: LinearMethod, *, rounds: bool, products: Int4Products | None = None):
        self.dtype, self.base, self.rounds, self.products = dtype, base, rounds, products

    @classmethod
    def of(cls, site: Site) -> Int4Method:
        """Rounds floats unless the weights are int4 already. Raises UsageError where it is asked for on a processor
        that cannot multiply from nibbles."""
        if site.device.type != "cpu" or not site.asked:
            return cls(site.dtype, site.dense, rounds=not site.packed)
        choice = kernels()
        if choice.native is None:
            raise UsageError(f"linear='int4' needs a GPU or compiled kernels; here: {choice.reason}")
        products = Int4Products(choice.native.instruction_set)
        return cls(site.dtype, site.dense, rounds=not site.packed, products=products)

    def convert(self, weight: Tensor | Int4Weight, bias: Tensor | None = None, *, gated: bool = False) -> Product:
        """The weights in int4, or a product of the method `base`."""
        packed = self._packed(weight)
        if isinstance(packed, Tensor):
            return self.base.convert(packed, bias, gated=gated)
        if packed.device.type == "cuda":
            return Int4Linear(packed, bias, gated)
        panels = None if self.products is None else int4_panels(packed, gated=gated)
        if self.products is None or panels is None:
            return self.base.convert(packed.floats(self.dtype), bias, gated=gated)
        return Int4PanelLinear(self.products, panels, None if bias is None else panel_order(bias, gated=gated))

    def convert_table(self, weight: Tensor) -> Table:
        """A table of the method `base`."""
        return self.base.convert_table(weight)

    def _packed(self, weight: Tensor | Int4Weight) -> Tensor | Int4Weight:
        """The weights in 4 bits, if they are or are to be."""
        if isinstance(weight, Tensor):
            group = LOADING.group_of(weight.shape[1])
            if not self.rounds or group % 2:  # an odd number of inputs has no bytes of two
                return weight
            weight = round_to_int4(weight, group)
        return weight
