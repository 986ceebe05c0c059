"""Qwen3-Next and Qwen3.5 (its text part): gated delta rules, and attention with a gate in every few layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import HeadNorm, Layer, Norm
from umbel.ir.recurrence import Recurrence
from umbel.models import experts_config as read
from umbel.models.architectures.mixtures import AS_QWEN, IN_SOME_LAYERS
from umbel.models.config_file import Config, flag_of, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

OFFSET = Norm(is_offset=True, is_wide=True)
STORED = replace(
    AS_LLAMA,
    recurrent={
        "qkv": tuple(f"linear_attn.in_proj_{part}" for part in ("qkv", "z", "b", "a")),
        "o": ("linear_attn.out_proj",),
    },
    vectors={
        "conv": ("linear_attn.conv1d.weight", 1),
        "decay": ("linear_attn.A_log", 0),
        "step_bias": ("linear_attn.dt_bias", 0),
        "out_norm": ("linear_attn.norm.weight", 0),
    },
)
AS_NEXT = replace(
    AS_QWEN,
    recurrent={
        "qkv": ("linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"),
        "o": ("linear_attn.out_proj",),
    },
    vectors=STORED.vectors,
    ignored=rf"{AS_QWEN.ignored}|mtp\..*",
)
ONLY_SILU = {"hidden_act": (None, "silu", "swish")}  # of the MLP, and behind the convolution
SIZES = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
}


def _layer(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias")
    return Layer(OFFSET, head_norm=HeadNorm(OFFSET), qkv_bias=bias, o_bias=bias, has_gate=True)


def _delta(config: Config) -> Recurrence:
    taps, key_dim, key_heads, heads, value_dim = (size_of(config, *each) for each in SIZES.items())
    channels = 2 * key_heads * key_dim + heads * value_dim
    return Recurrence(
        "gated_delta", channels, taps, heads=heads, key_heads=key_heads, key_dim=key_dim, value_dim=value_dim
    )


def _kinds(config: Config) -> Mapping[str, object]:
    """The kinds of layers where the config names only every how many have attention."""
    if config.get("layer_types"):
        return {}
    every, layers = size_of(config, "full_attention_interval", 4), size_of(config, "num_hidden_layers")
    return {"layer_types": ["full_attention" if i % every == 0 else "linear_attention" for i in range(1, layers + 1)]}


ROWS: Mapping[str, Family] = {
    "qwen3_5_text": Family(
        "Qwen3_5ForCausalLM",
        frozenset(("attention_bias", "full_attention_interval", *SIZES)),
        _layer,
        stored=STORED,
        head_dim=256,
        rotary_share=0.25,
        recurrent="linear_attention",
        recurrence=_delta,
        derive=_kinds,
        refused=ONLY_SILU,
    ),
    "qwen3_next": Family(
        "Qwen3NextForCausalLM",
        IN_SOME_LAYERS | {"attention_bias", "full_attention_interval", "shared_expert_intermediate_size", *SIZES},
        _layer,
        stored=AS_NEXT,
        head_dim=256,
        rotary_share=0.25,
        recurrent="linear_attention",
        recurrence=lambda config: replace(_delta(config), is_by_key=True),
        experts=read.qwen2_moe_experts,
        defaults={"norm_topk_prob": True},
        derive=_kinds,
        refused=ONLY_SILU,
    ),
}
