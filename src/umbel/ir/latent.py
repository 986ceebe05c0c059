"""The sizes of latent attention (DeepSeek-V2, 2405.04434): all heads read one vector of each token."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.kv_shape import KVShape


@dataclass(frozen=True, slots=True)
class Latent:
    """`kv_rank`: numbers of a token's latent, from which the keys and values of all heads are made; `rope_dim`: numbers
    of its key that turn, the same for all heads. A head's query and key have `plain_dim` numbers that do not turn
    before those that do, its value `value_dim`. `q_rank`: numbers that queries are made from, None: the hidden state.
    """

    kv_rank: int
    rope_dim: int
    plain_dim: int
    value_dim: int
    q_rank: int | None = None

    @property
    def query_dim(self) -> int:
        """Numbers of a head's query as the model has it."""
        return self.plain_dim + self.rope_dim

    def kv_shape(self, n_heads: int, scale: float | None = None) -> KVShape:
        """The attention of such a layer: what is stored of a token is its latent, which is the value of all heads, and
        behind it what turns of the key. `scale`: None for the query's size to the power of -1/2."""
        scale = float(self.query_dim**-0.5) if scale is None else scale
        return KVShape(n_heads, 1, self.kv_rank + self.rope_dim, self.kv_rank, scale, values_in_keys=True)
