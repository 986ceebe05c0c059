"""The architectures of GGUF files that are read, as rows: which family of transformers each is, and what its keys and
tensors are called there. A new one is a row here, once its family is one of `models/families.py`."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture.

    `model_type`, `class_name`: as config.json has them.
    `tensors`: what a tensor of a layer is called, relative to it; `{}` stands for the number of an expert.
    `keys`: what config.json calls further keys.
    `fixed`: what config.json says and a GGUF file leaves to its architecture.
    `biases`: keys of config.json that are true where a tensor of this name is there.
    `in_pairs`: of queries and keys, the two halves of a rotary pair are stored side by side, as llama.cpp rotates.
    """

    model_type: str
    class_name: str
    tensors: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    in_pairs: bool = False


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
})  # fmt: skip
"""By the name in `general.architecture`."""
