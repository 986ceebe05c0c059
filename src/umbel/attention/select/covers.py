"""Which of some cells are taken, by what is on them; of equal ones the first."""

from __future__ import annotations

import torch
from torch import Tensor


def top(scores: Tensor, count: int) -> Tensor:
    """Where the `count` largest of each row stand (`[rows, cells]`): bool of the same shape."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def cover(mass: Tensor, share: float, per_cell: Tensor | None = None) -> Tensor:
    """The fewest of each row, largest first, that together have at least a `share` of its mass (`[rows, cells]`), the
    one that reaches it included: bool of the same shape. Where cells differ in price, `per_cell` says by what they are
    ordered instead."""
    order = (mass if per_cell is None else per_cell).sort(dim=1, descending=True, stable=True).indices
    sums = mass.double().gather(1, order).cumsum(1)
    before = torch.cat((torch.zeros_like(sums[:, :1]), sums[:, :-1]), 1)
    return torch.zeros_like(mass, dtype=torch.bool).scatter_(1, order, before < share * sums[:, -1:])
