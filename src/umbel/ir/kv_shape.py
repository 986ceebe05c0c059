"""What attention of one layer is: heads, the sizes of a key and a value, the scale, and what bends the softmax."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KVShape:
    """The attention of one layer; layers of a model may differ.

    `n_heads` query heads share `n_kv_heads` heads of keys (of `key_dim` numbers) and values (of `value_dim`).
    `scale`: what the product of a query and a key is multiplied by. `cap`: products become `cap * tanh(product / cap)`
    (Gemma 2), None: they stay. `window`: how many keys up to its own a query sees, None: all. `sinks`: each head has a
    learned number in the softmax's sum that belongs to no key (gpt-oss). `values_in_keys`: the first `value_dim`
    numbers of a key are its value, which is not stored apart (latent attention, DeepSeek-V2, 2405.04434).
    """

    n_heads: int
    n_kv_heads: int
    key_dim: int
    value_dim: int
    scale: float
    window: int | None = None
    cap: float | None = None
    sinks: bool = False
    values_in_keys: bool = False

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.n_heads // self.n_kv_heads

    @property
    def stored_dim(self) -> int:
        """Numbers that the keys and values of one token take, for each KV head."""
        return self.key_dim + (0 if self.values_in_keys else self.value_dim)

    @property
    def stored_numbers(self) -> int:
        """Numbers that the keys and values of one token take."""
        return self.n_kv_heads * self.stored_dim

    @property
    def pair_flops(self) -> int:
        """Multiplications and additions for a query and a key that it sees: their product, and the weighted value."""
        return 2 * self.n_heads * (self.key_dim + self.value_dim)
