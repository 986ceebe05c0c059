"""The architectures of GGUF files that are read, as rows: which family of transformers each is, and what its keys and
tensors are called there. A new one is a row here, once its family is one of `models/families.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

KEYS: Mapping[str, str] = MappingProxyType({
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
})  # fmt: skip
"""What config.json calls the keys that every architecture has, without the architecture's name in front."""

EXPERT_KEYS: Mapping[str, str] = MappingProxyType({
    "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"
})  # fmt: skip
TOP: Mapping[str, str] = MappingProxyType({
    "output": "lm_head", "output_norm": "model.norm", "token_embd": "model.embed_tokens"
})  # fmt: skip
ATTENTION: Mapping[str, str] = MappingProxyType({
    "attn_k": "self_attn.k_proj",
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj",
    "attn_v": "self_attn.v_proj",
    "ffn_norm": "post_attention_layernorm",
})  # fmt: skip
GATED: Mapping[str, str] = MappingProxyType({
    "ffn_down": "mlp.down_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"
})  # fmt: skip
HEAD_NORMS: Mapping[str, str] = MappingProxyType({
    "attn_k_norm": "self_attn.k_norm", "attn_q_norm": "self_attn.q_norm"
})  # fmt: skip
BEHIND: Mapping[str, str] = MappingProxyType({
    **{name: own for name, own in {**ATTENTION, **GATED}.items() if not name.endswith("norm")},
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
})  # fmt: skip
SANDWICH: Mapping[str, str] = MappingProxyType({
    **BEHIND, "attn_norm": "input_layernorm", "ffn_norm": "pre_feedforward_layernorm"
})  # fmt: skip
WINDOW: Mapping[str, str] = MappingProxyType({"attention.sliding_window": "sliding_window"})


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture.

    `model_type`, `class_name`: as config.json has them.
    `tensors`: what a tensor of a layer is called, relative to it; `{}` stands for the number of an expert.
    `keys`: what config.json calls further keys.
    `fixed`: what config.json says and a GGUF file leaves to its architecture.
    `biases`: keys of config.json that are true where a tensor of this name is there.
    `in_pairs`: of queries and keys, the two halves of a rotary pair are stored side by side, as llama.cpp rotates.
    `adds_one`: weights of norms are stored with the one added that the family adds when it norms.
    `derive`: what config.json says besides, from what it says so far.
    """

    model_type: str
    class_name: str
    tensors: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    in_pairs: bool = False
    adds_one: bool = False
    derive: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda config: {}


def _gemma_scale(wide: int) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The scale of queries, which files do not say: by the size of a head, but by the width in the widest model."""

    def scale(config: Mapping[str, Any]) -> Mapping[str, Any]:
        if config.get("num_hidden_layers") == wide:
            return {"query_pre_attn_scalar": config["hidden_size"] / config["num_attention_heads"]}
        return {"query_pre_attn_scalar": config["head_dim"]} if "head_dim" in config else {}

    return scale


def _maybe_window(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A window of 0 is none."""
    return {"sliding_window": config.get("sliding_window") or None}


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({
    "llama": Architecture(
        "llama",
        "LlamaForCausalLM",
        ATTENTION | GATED,
        biases={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"},
        in_pairs=True,
    ),
    "llama with experts": Architecture(
        "mixtral",
        "MixtralForCausalLM",
        {
            **ATTENTION,
            "ffn_gate_inp": "block_sparse_moe.gate",
            "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
            "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
            "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
        },
        EXPERT_KEYS,
        in_pairs=True,
    ),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", ATTENTION | GATED),
    "qwen3": Architecture(
        "qwen3",
        "Qwen3ForCausalLM",
        {**ATTENTION, **GATED, **HEAD_NORMS},
        biases={"attention_bias": "blk.0.attn_q.bias"},
    ),
    "qwen3moe": Architecture(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        {
            **ATTENTION,
            **HEAD_NORMS,
            "ffn_gate_inp": "mlp.gate",
            "ffn_gate_exps": "mlp.experts.{}.gate_proj",
            "ffn_up_exps": "mlp.experts.{}.up_proj",
            "ffn_down_exps": "mlp.experts.{}.down_proj",
        },
        {**EXPERT_KEYS, "expert_feed_forward_length": "moe_intermediate_size"},
        {"norm_topk_prob": True},
    ),
    "gemma": Architecture("gemma", "GemmaForCausalLM", ATTENTION | GATED, adds_one=True),
    "gemma2": Architecture(
        "gemma2",
        "Gemma2ForCausalLM",
        SANDWICH,
        {**WINDOW, **{name: name for name in ("attn_logit_softcapping", "final_logit_softcapping")}},
        adds_one=True,
        derive=_gemma_scale(46),
    ),
    "gemma3": Architecture(
        "gemma3_text",
        "Gemma3ForCausalLM",
        {**SANDWICH, **HEAD_NORMS},
        WINDOW,
        adds_one=True,
        derive=_gemma_scale(62),
    ),
    "olmo2": Architecture("olmo2", "Olmo2ForCausalLM", {**BEHIND, **HEAD_NORMS}),
    "phi3": Architecture(
        "phi3",
        "Phi3ForCausalLM",
        {
            "attn_norm": "input_layernorm",
            "attn_output": "self_attn.o_proj",
            "attn_qkv": "self_attn.qkv_proj",
            "ffn_down": "mlp.down_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
        },
        WINDOW,
        derive=_maybe_window,
    ),
    "granite": Architecture(
        "granite",
        "GraniteForCausalLM",
        ATTENTION | GATED,
        {
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "logit_scale": "logits_scaling",
            "residual_scale": "residual_multiplier",
        },
        in_pairs=True,
    ),
    "glm4": Architecture(
        "glm4",
        "Glm4ForCausalLM",
        {
            **ATTENTION,
            "ffn_down": "mlp.down_proj",
            "ffn_up": "mlp.gate_up_proj",
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        },
        biases={"attention_bias": "blk.0.attn_q.bias"},
    ),
    "command-r": Architecture(
        "cohere",
        "CohereForCausalLM",
        {name: own for name, own in {**ATTENTION, **GATED, **HEAD_NORMS}.items() if name != "ffn_norm"},
        {"attention.layer_norm_epsilon": "layer_norm_eps", "logit_scale": "logit_scale"},
        biases={"use_qk_norm": "blk.0.attn_q_norm.weight"},
    ),
    "smollm3": Architecture("smollm3", "SmolLM3ForCausalLM", ATTENTION | GATED, in_pairs=True),
    "seed_oss": Architecture(
        "seed_oss",
        "SeedOssForCausalLM",
        {
            **{name: own for name, own in {**ATTENTION, **GATED}.items() if name != "ffn_norm"},
            "post_attention_norm": "post_attention_layernorm",
        },
        biases={"attention_bias": "blk.0.attn_q.bias", "attention_out_bias": "blk.0.attn_output.bias"},
    ),
})  # fmt: skip
"""By the name in `general.architecture`."""
