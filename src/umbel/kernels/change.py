"""How rows change the matrices of a state, one after the other: what kernels are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Chain:
    """In which `order`, from which page and to which (int64 `[rows]`): see StateChain. `ends`: of the waves."""

    source: Tensor
    target: Tensor
    order: Tensor
    ends: tuple[int, ...]

    def waves(self) -> Iterator[Tensor]:
        """The rows of each wave."""
        begin = 0
        for end in self.ends:
            yield self.order[begin:end]
            begin = end


@dataclass(frozen=True, slots=True)
class Change:
    """What rows do to the matrices of their state, and read of them; all float32.

    A matrix is multiplied by its `decay` (`[rows, heads]`). Then the outer product of the row's key and value is added;
    with `rates` (`[rows, heads]`) it is that of the key and `rate * (value - what the matrix has for the key)` (the
    delta rule). `queries`, `keys`: `[rows, key_heads, key_dim]`, each for as many heads, side by side; `values`:
    `[rows, heads, value_dim]`.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    decay: Tensor
    rates: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Rows, heads, heads of keys, and the sizes of a key and of a value."""
        (rows, heads, value_dim), (_, key_heads, key_dim) = self.values.shape, self.keys.shape
        return rows, heads, key_heads, key_dim, value_dim
