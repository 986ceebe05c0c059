"""GLM-4 (2406.12793): rotary positions over half of each head, in pairs of neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import Layer, Rope
from umbel.models.architectures.llama import STACKED
from umbel.models.config_file import Config, flag_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

KEYS = frozenset(("attention_bias",))
STORED = replace(AS_LLAMA, products=dict(AS_LLAMA.products) | {"gate_up": STACKED.products["gate_up"]})
SANDWICH = replace(
    STORED,
    norms=dict(AS_LLAMA.norms) | {"attn_post_norm": "post_self_attn_layernorm", "mlp_post_norm": "post_mlp_layernorm"},
)


def _glm(config: Config) -> Layer:
    return Layer(qkv_bias=flag_of(config, "attention_bias"), rope=Rope(interleaved=True))


def _glm4(config: Config) -> Layer:
    return replace(_glm(config), norms=("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm"))


ROWS: Mapping[str, Family] = {
    "glm": Family("GlmForCausalLM", KEYS, _glm, stored=STORED, head_dim=128, norm_eps=1.5625e-07, rotary_share=0.5),
    "glm4": Family(
        "Glm4ForCausalLM", KEYS, _glm4, stored=SANDWICH, head_dim=128, norm_eps=1.5625e-07, rotary_share=0.5
    ),
}
