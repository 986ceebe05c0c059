"""Gemma (2403.08295), Gemma 2 (2408.00118) and the text part of Gemma 3 (2503.19786)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import Edges, HeadNorm, Layer, Norm
from umbel.models.config_file import Config, flag_of, number_of, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

OFFSET = Norm(is_offset=True, is_wide=True)
SANDWICH = ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm")
STORED = replace(
    AS_LLAMA,
    norms=dict(AS_LLAMA.norms)
    | {
        "attn_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    },
)
BOTH_WAYS = {"use_bidirectional_attention": (None, False)}
DEFAULTS = {"tie_word_embeddings": True, "head_dim": 256}
KEYS = frozenset(("attention_bias", "final_logit_softcapping", "query_pre_attn_scalar", "sliding_window"))


def _gemma(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias")
    return Layer(norm=OFFSET, qkv_bias=bias, o_bias=bias, activation="gelu_pytorch_tanh")


def _old_activation(config: Config) -> Mapping[str, object]:
    """The first files say "gelu" and mean its approximation."""
    return {"hidden_act": "gelu_pytorch_tanh"} if config.get("hidden_act") == "gelu" else {}


def _sandwich(config: Config) -> Layer:
    scale = number_of(config, "query_pre_attn_scalar", 256.0, low=1e-6, high=1e6) ** -0.5
    return replace(_gemma(config), norms=SANDWICH, scale=scale)


def _gemma2(config: Config) -> Layer:
    return replace(_sandwich(config), cap=_cap(config, "attn_logit_softcapping"))


def _gemma3(config: Config) -> Layer:
    return replace(_sandwich(config), head_norm=HeadNorm(OFFSET))


def _edges(config: Config) -> Edges:
    return Edges(embedding_scale=float(size_of(config, "hidden_size") ** 0.5))


def _capped_edges(config: Config) -> Edges:
    return replace(_edges(config), logit_cap=_cap(config, "final_logit_softcapping"))


def _cap(config: Config, key: str) -> float | None:
    return None if config.get(key) is None else number_of(config, key, None, low=1e-6, high=1e6)


ROWS: Mapping[str, Family] = {
    "gemma": Family(
        "GemmaForCausalLM",
        frozenset(("attention_bias",)),
        _gemma,
        bos=2,
        eos=1,
        edges=_edges,
        defaults=DEFAULTS,
        derive=_old_activation,
        refused=BOTH_WAYS,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        KEYS | {"attn_logit_softcapping"},
        _gemma2,
        "typed",
        stored=STORED,
        bos=2,
        eos=1,
        edges=_capped_edges,
        names={"hidden_act": "hidden_activation"},
        defaults=DEFAULTS | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        every_full=2,
        refused=BOTH_WAYS,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        KEYS | {"rope_local_base_freq", "sliding_window_pattern"},
        _gemma3,
        "typed",
        stored=STORED,
        bos=2,
        eos=1,
        edges=_capped_edges,
        names={"hidden_act": "hidden_activation"},
        defaults=DEFAULTS,
        every_full=6,
        thetas={"full_attention": ("rope_theta", 1e6), "sliding_attention": ("rope_local_base_freq", 1e4)},
        refused=BOTH_WAYS | {"attn_logit_softcapping": (None,)},
    ),
}
