"""Where the keys and values of a step go."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys and values of rows go in a layer: `keys` and `values` (`[n_kv_heads, slots, dim]`), the slot of each
    row (int64 `[rows]`), and where they are fp8, what one unit of each is worth (float32 `[n_kv_heads, slots]`)."""

    keys: Tensor
    values: Tensor
    slots: Tensor
    worths: tuple[Tensor, Tensor] | None = None

    def tensors(self, n_kv: int, dim: int) -> tuple[Tensor, ...]:
        """Keys, values, what they are worth, slots; raises ValueError where heads do not fit them."""
        keys, values = self.keys, self.values
        fits = keys.shape == values.shape == (n_kv, keys.shape[1], dim)
        if not fits or not keys.is_contiguous() or not values.is_contiguous():
            raise ValueError(f"keys {tuple(keys.shape)} for {n_kv} heads of {dim}: other heads, or not side by side")
        return (keys, values, *(self.worths or (keys, values)), self.slots)
