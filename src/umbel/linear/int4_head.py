"""Products of linear/int4.py on a processor, and beside them the embedding and the head in int8. Lossy, and more so.

A token of a small model reads its head as well as its layers: with these in 4 bits, the head of a model of 0.6 billion
parameters with a vocabulary of 151,936 is more than half of all bytes. Its rounding falls on the logits themselves,
therefore it is asked for apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.errors import UsageError
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import Int8Products, int8_weights
from umbel.kernels.native.products_int4 import Int4Products
from umbel.linear.base import LinearMethod, Site, Table
from umbel.linear.int4 import Int4Method
from umbel.linear.int8 import Int8Table


class Int4HeadMethod(Int4Method):
    """Weights in int4, tables in int8."""

    def __init__(self, dtype: torch.dtype, base: LinearMethod, instruction_set: str, *, rounds: bool):
        super().__init__(dtype, base, rounds=rounds, products=Int4Products(instruction_set))
        self.tables = Int8Products(instruction_set)

    @classmethod
    def of(cls, site: Site) -> Int4HeadMethod:
        """Raises UsageError where nothing multiplies in int8."""
        choice = kernels()
        if choice.native is None or site.device.type != "cpu":
            why = f"{site.device.type}, {choice.reason}"
            raise UsageError(f"linear='int4-head8' needs compiled kernels and a CPU; here: {why}")
        return cls(site.dtype, site.dense, choice.native.instruction_set, rounds=not site.packed)

    def convert_table(self, weight: Tensor) -> Table:
        """The embedding, the head, or both in one."""
        return Int8Table(self.tables, int8_weights(weight), self.dtype)
