"""Mixtures of experts whose routers are corrected or biased: ERNIE 4.5, GLM-4.5, dots.llm1 and gpt-oss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import Edges, HeadNorm, Layer, Norm, Rope
from umbel.models import experts_config as read
from umbel.models.architectures.llama import ATTENTION_BIAS, WINDOW, qwen3
from umbel.models.architectures.mixtures import EXPERTS, PROJECTIONS, stored_as
from umbel.models.config_file import Config, flag_of, size_of
from umbel.models.expert_parts import StoredExperts
from umbel.models.family import Family
from umbel.models.layer_config import FULL, SLIDING
from umbel.models.stored import AS_LLAMA

ROUTED = EXPERTS | {
    "first_k_dense_replace", "moe_intermediate_size", "n_group", "n_routed_experts", "n_shared_experts",
    "norm_topk_prob", "routed_scaling_factor", "topk_group",
}  # fmt: skip
ERNIE = EXPERTS | {
    "moe_intermediate_size", "moe_k", "moe_layer_end_index", "moe_layer_interval", "moe_layer_start_index",
    "moe_norm_min", "moe_num_experts", "moe_num_shared_experts", "use_bias",
}  # fmt: skip
AS_DEEPSEEK = stored_as(
    AS_LLAMA, "mlp", *PROJECTIONS, shared="shared_experts", correction="gate.e_score_correction_bias"
)
AS_ERNIE = replace(
    AS_DEEPSEEK, vectors={"router_correction": ("mlp.moe_statics.e_score_correction_bias", 1)}, ignored=r".*\.mtp_.*"
)
AS_GPT_OSS = replace(
    AS_LLAMA,
    products={**AS_LLAMA.products, "router": ("mlp.router",)},
    experts=StoredExperts(("mlp.experts.gate_up_proj",), ("mlp.experts.down_proj",), "paired"),
    vectors={"sinks": ("self_attn.sinks", 0)},
)
YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
"""What gpt-oss has where a file says nothing of rotary positions."""
IN_ALL_LAYERS = {"moe_layer_freq": (None, 1)}


def _ernie(config: Config) -> Layer:
    bias = flag_of(config, "use_bias")
    return Layer(qkv_bias=bias, o_bias=bias, mlp_bias=bias, rope=Rope(interleaved=True))


def _ernie_edges(config: Config) -> Edges:
    return Edges(head_bias=flag_of(config, "use_bias"))


def _glm4_moe(config: Config) -> Layer:
    norm = HeadNorm() if flag_of(config, "use_qk_norm") else None
    return Layer(qkv_bias=flag_of(config, "attention_bias"), head_norm=norm)


def _dots1_kinds(config: Config) -> Mapping[str, object]:
    """Layers behind the first `max_window_layers` have a window."""
    if config.get("layer_types"):
        return {}
    first, layers = size_of(config, "max_window_layers", 62, low=0), range(size_of(config, "num_hidden_layers"))
    has_window = config.get("sliding_window", 4096) is not None
    return {"layer_types": [SLIDING if has_window and layer >= first else FULL for layer in layers]}


def _gpt_oss(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias", default=True)
    return Layer(Norm(is_wide=True), qkv_bias=bias, o_bias=bias, sinks=True)


def _gpt_oss_defaults(config: Config) -> Mapping[str, object]:
    """Every other layer has a window, the first one too; positions are stretched."""
    layers = range(size_of(config, "num_hidden_layers"))
    kinds = config.get("layer_types") or [FULL if layer % 2 else SLIDING for layer in layers]
    says_nothing = not config.get("rope_scaling") and not config.get("rope_parameters")
    return {"layer_types": kinds} | ({"rope_parameters": YARN} if says_nothing else {})


ROWS: Mapping[str, Family] = {
    "ernie4_5_moe": Family(
        "Ernie4_5_MoeForCausalLM",
        ERNIE,
        _ernie,
        stored=AS_ERNIE,
        bos=1,
        eos=2,
        rope_theta=5e5,
        norm_eps=1e-5,
        experts=read.ernie_experts,
        edges=_ernie_edges,
        defaults={"tie_word_embeddings": True},
    ),
    "glm4_moe": Family(
        "Glm4MoeForCausalLM",
        ROUTED | ATTENTION_BIAS | {"use_qk_norm"},
        _glm4_moe,
        stored=replace(AS_DEEPSEEK, has_more_layers=True),
        norm_eps=1e-5,
        experts=read.glm4_moe_experts,
        rotary_share=0.5,
        refused=IN_ALL_LAYERS | {"scoring_func": (None, "sigmoid"), "topk_method": (None, "noaux_tc")},
    ),
    "dots1": Family(
        "Dots1ForCausalLM",
        WINDOW | ROUTED | ATTENTION_BIAS | {"max_window_layers"},
        qwen3,
        "typed",
        stored=AS_DEEPSEEK,
        experts=read.dots1_experts,
        derive=_dots1_kinds,
        refused=IN_ALL_LAYERS | {"scoring_func": (None, "noaux_tc", "sigmoid"), "use_sliding_window": (None, False)},
    ),
    "gpt_oss": Family(
        "GptOssForCausalLM",
        WINDOW | EXPERTS | ATTENTION_BIAS | {"swiglu_alpha", "swiglu_limit"},
        _gpt_oss,
        "typed",
        stored=AS_GPT_OSS,
        head_dim=64,
        window_size=128,
        rope_theta=150_000.0,
        norm_eps=1e-5,
        experts=read.gpt_oss_experts,
        derive=_gpt_oss_defaults,
    ),
}
