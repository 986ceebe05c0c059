"""DeepSeek-V2 (2405.04434) and V3 (2412.19437): latent attention, and experts in groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.latent import Latent
from umbel.ir.layer import Layer, Rope
from umbel.models import experts_config as read
from umbel.models.architectures.routed import AS_DEEPSEEK, IN_ALL_LAYERS, ROUTED
from umbel.models.config_file import Config, flag_of, number_of, size_of
from umbel.models.family import Family

LATENT = frozenset(("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
COMMON = IN_ALL_LAYERS | {"attention_bias": (None, False)}
STORED = replace(
    AS_DEEPSEEK,
    products={
        **AS_DEEPSEEK.products,
        "qkv": ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
        "q_and_kv": ("self_attn.q_proj", "self_attn.kv_a_proj_with_mqa"),
        "q_up": ("self_attn.q_b_proj",),
        "kv_up": ("self_attn.kv_b_proj",),
    },
    norms={
        **AS_DEEPSEEK.norms,
        "q_latent_norm": "self_attn.q_a_layernorm",
        "kv_latent_norm": "self_attn.kv_a_layernorm",
    },
)


def _latent(config: Config) -> Layer:
    """DeepSeek-V2's layer; of what turns pairs are neighbours."""
    rank = None if config.get("q_lora_rank", 1536) is None else size_of(config, "q_lora_rank", 1536)
    sizes = [size_of(config, key) for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")]
    latent = Latent(*sizes, q_rank=rank)
    return Layer(rope=Rope(interleaved=True), scale=latent.query_dim**-0.5 * _stretch(config) ** 2, latent=latent)


def _latent_v3(config: Config) -> Layer:
    return replace(_latent(config), rope=Rope(interleaved=flag_of(config, "rope_interleave", default=True)))


def _stretch(config: Config) -> float:
    """By what YaRN multiplies queries and keys of these models beside cosines and sines."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or (rope.get("rope_type") or rope.get("type") or "default") == "default":
        return 1.0
    factor, share = (number_of(rope, key, 0.0, low=0.0, high=1e6) for key in ("factor", "mscale_all_dim"))
    return 0.1 * share * math.log(factor) + 1.0 if share and factor > 1 else 1.0


def _turning(config: Config) -> Mapping[str, object]:
    """Rotary positions know the part of a head that turns."""
    return {"head_dim": size_of(config, "qk_rope_head_dim")}


ROWS: Mapping[str, Family] = {
    "deepseek_v2": Family(
        "DeepseekV2ForCausalLM",
        ROUTED - {"norm_topk_prob"} | LATENT | {"topk_method"},
        _latent,
        stored=STORED,
        bos=1,
        eos=2,
        experts=read.deepseek_v2_experts,
        derive=_turning,
        refused=COMMON
        | {"mlp_bias": (None, False), "norm_topk_prob": (None, False), "scoring_func": (None, "softmax")},
    ),
    "deepseek_v3": Family(
        "DeepseekV3ForCausalLM",
        ROUTED | LATENT | {"rope_interleave"},
        _latent_v3,
        stored=replace(STORED, has_more_layers=True),
        bos=0,
        eos=1,
        experts=read.deepseek_v3_experts,
        derive=_turning,
        refused=COMMON | {"scoring_func": (None, "sigmoid"), "topk_method": (None, "noaux_tc")},
    ),
}
