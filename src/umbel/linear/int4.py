"""Products with weights in 4 bits (W4A16): exactly those of the weights that nibbles stand for, in the compute type.

A checkpoint may have them (GPTQ 2210.17323, AWQ 2306.00978), or floats are rounded to the nearest as they are loaded,
which is lossy: answers may change. On a GPU the weights stay packed, and a kernel widens them as it multiplies. A
processor is handed the floats, once, and is as fast as without: it saves no memory. The embedding and the head stay as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.ir.int4_format import LOADING
from umbel.kernels.dispatch import gpu_kernels
from umbel.kernels.int4 import Int4Weight, round_to_int4
from umbel.kernels.rows import gated_silu
from umbel.linear.base import Linear, LinearMethod, Site, Table

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
        product = self._multiply(x)
        return gated_silu(product) if self.is_gated else product

    def _multiply(self, x: Tensor) -> Tensor:
        if gpu_kernels() is None:
            return F.linear(x, self.weight.floats(x.dtype), self.bias)
        from umbel.kernels.triton.int4 import multiply_int4, widen  # here, as not every machine has Triton

        if x.shape[0] > FEW_ROWS:
            return F.linear(x, widen(self.weight, x.dtype), self.bias)
        product = multiply_int4(x, self.weight)
        return product if self.bias is None else product + self.bias


class Int4Method:
    """Weights in int4; tables, and products that are not, are those of the method `base`. `rounds`: floats become int4.
    What stays floats is of `dtype`."""

    keeps_weights = False

    def __init__(self, dtype: torch.dtype, base: LinearMethod, *, rounds: bool):
        self.dtype, self.base, self.rounds = dtype, base, rounds

    @classmethod
    def of(cls, site: Site) -> Int4Method:
        """Rounds floats unless the weights are int4 already."""
        return cls(site.dtype, site.dense, rounds=not site.packed)

    def convert(self, weight: Tensor | Int4Weight, bias: Tensor | None = None, *, gated: bool = False) -> Linear:
        """The weights in int4, or a product of the method `base`."""
        packed = self._packed(weight)
        if isinstance(packed, Tensor):
            return self.base.convert(packed, bias, gated=gated)
        return Int4Linear(packed, bias, gated)

    def convert_table(self, weight: Tensor) -> Table:
        """A table of the method `base`."""
        return self.base.convert_table(weight)

    def _packed(self, weight: Tensor | Int4Weight) -> Tensor | Int4Weight:
        """The weights as they are kept: nibbles on a GPU, floats on a processor."""
        if isinstance(weight, Tensor):
            group = LOADING.group_of(weight.shape[1])
            if not self.rounds or group % 2:  # an odd number of inputs has no bytes of two
                return weight
            weight = round_to_int4(weight, group)
        return weight if weight.device.type == "cuda" else weight.floats(self.dtype)
