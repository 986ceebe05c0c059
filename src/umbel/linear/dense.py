"""Products by torch with the weights as they are, on any device.

On CPU in float32 the result of a row never depends on how many other rows are in the call, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.kernels.rows import gated_silu

MANY_ROWS = 32  # sums are in the same order from here on


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """A product with weights as they are; `is_gated`: a gate is behind it."""

    weight: Tensor
    bias: Tensor | None
    is_gated: bool

    def apply(self, x: Tensor) -> Tensor:
        """`x @ weight.T + bias`, and the gate."""
        product = linear(x, self.weight, self.bias)
        return gated_silu(product) if self.is_gated else product


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
    rows = x.shape[0]
    if rows >= MANY_ROWS or x.is_cuda or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    n_missing = alike_rows(x.shape[1])[rows] - rows
    if n_missing == 0:
        return F.linear(x, weight, bias)
    # Rows of zeros cost little, as a product this thin waits for the weights anyway.
    padded = F.pad(x, (0, 0, 0, n_missing))
    return F.linear(padded, weight, bias)[:rows]


@cache
def alike_rows(width: int) -> tuple[int, ...]:
    """For each number of rows below MANY_ROWS, the least number, as many or more, for which this processor sums as it
    does for many rows, in products with `width` inputs.

    MKL's sgemm has an order of its own for few rows: below 12, but for 4 and 8, on some processors; below 16, or fewer
    where there are few inputs, on others. That is tried here, as it is not documented.
    """
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(count, width, generator=draw) for count in (MANY_ROWS, 64))
    many = F.linear(x, weight)
    alike = [n for n in range(1, MANY_ROWS + 1) if torch.equal(F.linear(x[:n], weight), many[:n])]
    return 0, *(min(n for n in alike if n >= rows) for rows in range(1, MANY_ROWS))
