"""What checkpoints call a model's tensors, and how they lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from umbel.ir.layer import Layer
from umbel.models.expert_parts import StoredExperts

PRODUCTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "up": ("mlp.up_proj",),
    "down": ("mlp.down_proj",),
})  # fmt: skip
NORMS: Mapping[str, str] = MappingProxyType({
    "attn_norm": "input_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """Names in a checkpoint, without ".weight" or ".bias".

    `products`: the tensors of a layer that each of ours stacks, or one that is already their stack, but for those of
    its `experts`; `recurrent`: those of layers with a recurrence, where they differ. `norms`, `vectors`: what else it
    has; of norms "{}" is the number of a head, vectors have their full name and how many axes of length 1 stand before
    their last. `two_norms`: those of parallel layers that have two, where they differ. `layer`: what stands before all
    of these, "{}" is its number. `is_grouped`: in "qkv" the queries of each KV head stand before its key and its value.
    `is_turned`: products lie with their inputs first. `ignored`: a regular expression of tensors that follow from the
    config. `has_more_layers`: behind those of the config there may be one that predicts further tokens, which is not
    read.
    """

    products: Mapping[str, tuple[str, ...]]
    norms: Mapping[str, str]
    embed: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    positions: str = ""
    layer: str = "model.layers.{}."
    experts: StoredExperts | None = None
    vectors: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    two_norms: Mapping[str, str] = field(default_factory=dict)
    recurrent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_grouped: bool = False
    is_turned: bool = False
    ignored: str = r".*\.rotary_emb\.inv_freq"
    has_more_layers: bool = False

    def of_layer(self, layer: Layer) -> Stored:
        """The names that such a layer has."""
        return self if layer.recurrence is None else replace(self, products={**self.products, **self.recurrent})

    @property
    def body(self) -> str:
        """What stands before all names but that of the head: models that were saved without one leave it out."""
        return self.embed.partition(".")[0] + "."


AS_LLAMA = Stored(PRODUCTS, NORMS)
