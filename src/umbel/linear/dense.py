"""Products by torch with the weights as they are, on any device.

On CPU in float32 the result of a row never depends on how many other rows are in the call, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.kernels.rows import gated_silu

BLOCK_ROWS = 16


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """A product with weights as they are; `is_gated`: a gate is behind it."""

    weight: Tensor
    bias: Tensor | None
    is_gated: bool

    def apply(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`, and the gate."""
        product = self.before_gate(x)
        return gated_silu(product) if self.is_gated else product

    def before_gate(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`."""
        return linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class DenseTable:
    """A table as it is."""

    weight: Tensor

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the table."""
        return F.embedding(ids, self.weight)

    def logits(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Products with all rows, in the type of the weights and widened to float32."""
        return linear(x, self.weight).to(torch.float32)


class DenseMethod:
    """Weights as they are."""

    keeps_weights = True

    def convert(self, weight: Tensor, bias: Tensor | None = None, *, gated: bool = False) -> DenseLinear:
        """The weights themselves."""
        return DenseLinear(weight, bias, gated)

    def convert_table(self, weight: Tensor) -> DenseTable:
        """The weights themselves."""
        return DenseTable(weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: [rows, in] -> [rows, out]."""
    if x.is_cuda or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    # BLAS sums in another order for another shape: MKL for fewer than 16 rows and, on several threads, for up to 500
    # (measured on AVX-512). Blocks of one shape take up to three times as long; compiled products need none.
    rows = len(x)
    blocks = F.pad(x, (0, 0, 0, -rows % BLOCK_ROWS)).split(BLOCK_ROWS) if rows else (x,)
    return torch.cat([F.linear(block, weight, bias) for block in blocks])[:rows]
