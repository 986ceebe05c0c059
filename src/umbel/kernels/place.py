"""Where the keys and values of a step go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.kernels.reference import round_to_fp8, round_to_int8


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys and values of rows go in a layer: `keys` and `values` (`[n_kv_heads, slots, dim]`), the slot of each
    row (int64 `[rows]`), and where they are of 8 bits their dequantisation `scales` (keys', values'; float32
    `[n_kv_heads, slots]`)."""

    keys: Tensor
    values: Tensor
    slots: Tensor
    scales: tuple[Tensor, Tensor] | None = None

    def write(self, k: Tensor, v: Tensor | None) -> None:
        """Store `k` and `v` (`[rows, n_kv_heads, dim]`, rounded to the type of the store; v is None where values are a
        part of keys), in plain torch on any device."""
        if self.scales is None:
            for new, stored in ((k, self.keys), (v, self.values)):
                if new is not None:
                    stored.index_copy_(1, self.slots, new.transpose(0, 1).to(stored.dtype))
            return
        round_some = round_to_int8 if self.keys.dtype == torch.int8 else round_to_fp8
        for new, stored, scales in zip((k, v), (self.keys, self.values), self.scales, strict=True):
            if new is None:
                continue
            rounded, scale = round_some(new.transpose(0, 1))
            # As bytes, since torch on a CPU moves no fp8 by index.
            stored.view(torch.uint8).index_copy_(1, self.slots, rounded.view(torch.uint8))
            scales.index_copy_(1, self.slots, scale)

    def check(self, rows: int, n_kv: int, dim: int) -> None:
        """Raise ValueError where `rows` of `n_kv` heads of `dim` do not fit, or heads do not lie side by side."""
        keys, values, slots = self.keys, self.values, self.slots
        if not keys.shape == values.shape == (n_kv, keys.shape[1], dim) or slots.shape != (rows,):
            shapes = f"keys {tuple(keys.shape)}, values {tuple(values.shape)}, slots {tuple(slots.shape)}"
            raise ValueError(f"{shapes}: other heads or rows than {rows} rows of {n_kv} heads of {dim}")
        if not (keys.is_contiguous() and values.is_contiguous() and slots.is_contiguous()):
            raise ValueError(
                f"keys {keys.stride()}, values {values.stride()} or slots {slots.stride()}: not side by side"
            )
        if slots.dtype != torch.int64:
            raise TypeError(f"slots are {slots.dtype}, not int64")
