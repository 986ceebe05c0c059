"""The layers of a model as lists of matrix products, made from its spec: what is priced, loaded and cut by ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umbel.ir.experts import Experts
from umbel.ir.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Matmul:
    """One product of a layer, by the name of its weights (`models/weights.py`).

    Several products of the same `inputs` are stacked: `parts` are the outputs of each, as of queries, keys and values.
    `cut` is the side that tensor parallelism cuts: "outputs" (of each part), "inputs", or "" for none. `is_ending`: it
    stands behind the attention. In its place stand `experts`, of which a token uses `per_token`.
    """

    name: str
    inputs: int
    parts: tuple[int, ...]
    cut: str
    has_bias: bool = False
    is_ending: bool = True
    experts: int = 1
    per_token: int = 1

    @property
    def outputs(self) -> int:
        """Outputs of all parts together."""
        return sum(self.parts)

    @property
    def flops(self) -> int:
        """Multiplications and additions for a token."""
        return 2 * self.inputs * self.outputs * self.per_token

    @property
    def weights(self) -> int:
        """Numbers in its matrices."""
        return self.inputs * self.outputs * self.experts

    @property
    def biases(self) -> int:
        """Numbers in its bias."""
        return self.outputs if self.has_bias else 0


def layer_matmuls(spec: ModelSpec, layer: int) -> tuple[Matmul, ...]:
    """The products of one layer, in the order in which a token meets them."""
    hidden, wide = spec.hidden_size, spec.intermediate_size
    q, kv = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    attention = (
        Matmul("qkv", hidden, (q, kv, kv), "outputs", spec.qkv_bias, is_ending=False),
        Matmul("o", q, (hidden,), "inputs", spec.o_bias),
    )
    if spec.experts is not None and layer not in spec.experts.dense_layers:
        return attention + _of_experts(hidden, spec.experts)
    gate_up = Matmul("gate_up", hidden, (wide, wide), "outputs", spec.mlp_bias)
    return (*attention, gate_up, Matmul("down", wide, (hidden,), "inputs", spec.mlp_bias))


def layer_norms(spec: ModelSpec) -> Mapping[str, int]:
    """The widths of a layer's norm weights; the first ones stand before the attention, `mlp_norm` behind it."""
    of_heads = {"q_norm": spec.head_dim, "k_norm": spec.head_dim} if spec.qk_norm else {}
    return {"attn_norm": spec.hidden_size, **of_heads, "mlp_norm": spec.hidden_size}


def _of_experts(hidden: int, experts: Experts) -> tuple[Matmul, ...]:
    """A router, and experts that are stacked in two products."""
    wide, count, used = experts.width, experts.count, experts.per_token
    return (
        Matmul("router", hidden, (count,), ""),
        Matmul("experts_gate_up", hidden, (wide, wide), "outputs", experts=count, per_token=used),
        Matmul("experts_down", wide, (hidden,), "inputs", experts=count, per_token=used),
    )
