"""The layers of a model as lists of matrix products, made from its spec: what is priced, loaded and cut by ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umbel.ir.experts import Experts
from umbel.ir.hosted import HostedProduct
from umbel.ir.latent import Latent
from umbel.ir.layer import Norm
from umbel.ir.recurrence import Recurrence
from umbel.ir.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Matmul:
    """One product of a layer, by the name of its weights (`models/weights.py`).

    Several products of the same `inputs` are stacked: `parts` are the outputs of each, as of queries, keys and values.
    `cut` is the side that tensor parallelism cuts: "outputs" (of each part), "inputs", or "" for none. `is_ending`: it
    stands behind the attention. In its place stand `experts`, of which a token uses `per_token`. `is_wide`: its weights
    are kept in float32, whatever the model's type is.
    """

    name: str
    inputs: int
    parts: tuple[int, ...]
    cut: str
    has_bias: bool = False
    is_ending: bool = True
    experts: int = 1
    per_token: int = 1
    is_wide: bool = False

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
        return self.outputs * self.experts if self.has_bias else 0


@dataclass(frozen=True, slots=True)
class NormVector:
    """A weight or a bias of a norm (`width` numbers), by the name of its tensor. `is_ending`: it stands behind the
    attention. `of_heads`: it belongs to query or key heads; `is_by_head`: each has its own, and they are cut with the
    heads."""

    name: str
    width: int
    is_ending: bool
    of_heads: bool = False
    is_by_head: bool = False


def layer_matmuls(spec: ModelSpec, layer: int) -> tuple[Matmul, ...]:
    """The products of one layer, in the order in which a token meets them."""
    if spec.hosted is not None:
        return tuple(_of_module(product) for product in spec.hosted.layers[layer].products)
    own, hidden, wide = spec.layer(layer), spec.hidden_size, spec.intermediate_size
    q, kv = spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim
    attention: tuple[Matmul, ...] = (
        Matmul("qkv", hidden, (q * 2 if own.has_gate else q, kv, kv), "outputs", own.qkv_bias, is_ending=False),
        Matmul("o", q, (hidden,), "inputs", own.o_bias),
    )
    if own.latent is not None:
        attention = _latent(spec, own.latent)
    if own.recurrence is not None:
        attention = _recurrent(hidden, own.recurrence)
    experts = experts_of(spec, layer)
    if experts is not None:
        return attention + _of_experts(hidden, experts)
    name, parts = ("gate_up", (wide, wide)) if own.is_gated else ("up", (wide,))
    up = Matmul(name, hidden, parts, "outputs", own.mlp_bias)
    return (*attention, up, Matmul("down", wide, (hidden,), "inputs", own.mlp_bias))


def _latent(spec: ModelSpec, latent: Latent) -> tuple[Matmul, ...]:
    """The products of latent attention; queries that are made from hidden states stand in "qkv"."""
    hidden, rank, queries = spec.hidden_size, latent.q_rank, spec.n_heads * latent.query_dim
    up, values = spec.n_heads * (latent.plain_dim + latent.value_dim), spec.n_heads * latent.value_dim
    stored = latent.kv_rank + latent.rope_dim
    return (
        Matmul("qkv", hidden, (rank or queries, stored), "", is_ending=False),
        *(() if rank is None else (Matmul("q_up", rank, (queries,), "", is_ending=False),)),
        Matmul("kv_up", latent.kv_rank, (up,), "", is_ending=False),
        Matmul("o", values, (hidden,), ""),
    )


def _recurrent(hidden: int, own: Recurrence) -> tuple[Matmul, ...]:
    """The products around a recurrence."""
    return (
        Matmul("qkv", hidden, own.stacked, "", own.has_bias, is_ending=False),
        Matmul("o", own.width, (hidden,), "", own.has_bias),
    )


def layer_norms(spec: ModelSpec, layer: int) -> tuple[NormVector, ...]:
    """What the norms of one layer have learned."""
    own, found = spec.layer(layer), []
    for name in own.norms:
        found += [NormVector(each, spec.hidden_size, name != "attn_norm") for each in learned(own.norm, name)]
    if own.latent is not None:
        ranks = {"q_latent_norm": own.latent.q_rank, "kv_latent_norm": own.latent.kv_rank}
        found += [NormVector(name, rank, False, of_heads=True) for name, rank in ranks.items() if rank]
    if own.head_norm is None:
        return tuple(found)
    over = own.head_norm.over
    for name, heads in (("q_norm", spec.n_heads), ("k_norm", spec.n_kv_heads)):
        width = spec.head_dim * (1 if over == "head" else heads)
        found += [NormVector(each, width, False, True, over == "heads") for each in learned(own.head_norm.norm, name)]
    return tuple(found)


def layer_vectors(spec: ModelSpec, layer: int) -> Mapping[str, tuple[int, ...]]:
    """What else one layer has learned, with its shape; it stays in float32, whatever the model's type is."""
    experts, own, found = experts_of(spec, layer), spec.layer(layer), dict[str, tuple[int, ...]]()
    if own.sinks:
        found["sinks"] = (spec.n_heads,)
    if experts is not None and experts.router.corrected:
        found["router_correction"] = (experts.count,)
    if own.recurrence is not None:
        found |= own.recurrence.vectors
    return found


def experts_of(spec: ModelSpec, layer: int) -> Experts | None:
    """The experts of a layer, None where it has an MLP of its own."""
    return None if spec.experts is None or layer in spec.experts.dense_layers else spec.experts


def learned(norm: Norm, name: str) -> list[str]:
    """Our names of what a norm called `name` has learned."""
    return [name] * norm.has_weight + [f"{name}_bias"] * norm.has_bias


def _of_module(product: HostedProduct) -> Matmul:
    """A product that transformers' module makes; its layers compute all rows to their end."""
    p = product
    return Matmul(
        p.name, p.inputs, (p.outputs,), "", p.has_bias, is_ending=False, experts=p.experts, per_token=p.per_token
    )


def _of_experts(hidden: int, experts: Experts) -> tuple[Matmul, ...]:
    """A router, experts that are stacked in two products, and a shared one beside them."""
    wide, shared, count, each = experts.width, experts.shared_width, experts.count, experts.per_token
    found = [
        Matmul("router", hidden, (count,), "", experts.router.biased, is_wide=experts.router.in_float32),
        Matmul("experts_gate_up", hidden, (wide, wide), "outputs", experts.biased, experts=count, per_token=each),
        Matmul("experts_down", wide, (hidden,), "inputs", experts.biased, experts=count, per_token=each),
    ]
    if shared:
        found.append(Matmul("shared_gate_up", hidden, (shared, shared), "outputs", experts.shared_bias))
        found.append(Matmul("shared_down", shared, (hidden,), "inputs", experts.shared_bias))
    if experts.shared_gate:
        found.append(Matmul("shared_gate", hidden, (1,), ""))
    return tuple(found)
