"""Tiny random mixtures of experts, made by transformers from configurations and stored as it stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_models import VOCAB_SIZE, write_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": False,
    "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
LOCAL = {"intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 3}
QWEN = {
    "intermediate_size": 80, "moe_intermediate_size": 40, "num_experts": 8, "num_experts_per_tok": 3,
    "shared_expert_intermediate_size": 56, "max_window_layers": 3,
}  # fmt: skip
ROUTED = {
    "intermediate_size": 80, "moe_intermediate_size": 40, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 3, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5,
}  # fmt: skip
ERNIE = {
    "intermediate_size": 80, "moe_intermediate_size": 40, "moe_num_experts": 8, "moe_k": 3, "head_dim": 16,
    "moe_num_shared_experts": 2, "moe_layer_start_index": 1,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
    "truncate": False, "original_max_position_embeddings": 128,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0 + i / 8 for i in range(8)],
    "long_factor": [2.0] * 8, "short_mscale": 1.2, "long_mscale": 1.3, "original_max_position_embeddings": 256,
}  # fmt: skip
GPT_OSS = LOCAL | {"head_dim": 16, "sliding_window": 24, "rope_parameters": YARN}
GRANITE = LOCAL | {
    "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.3,
}  # fmt: skip
DEEPSEEK = ROUTED | {
    "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
    "v_head_dim": 12,
}  # fmt: skip
LIMITED = DEEPSEEK | {"topk_method": "group_limited_greedy", "num_experts_per_tok": 3}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_moe": ("qwen2_moe", QWEN),
    "qwen2_moe, sums to one, some dense": (
        "qwen2_moe", QWEN | {"norm_topk_prob": True, "decoder_sparse_step": 2, "qkv_bias": False},
    ),
    "qwen2_moe, windows": (
        "qwen2_moe", QWEN | {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    ),
    "olmoe": ("olmoe", {"intermediate_size": 40, "num_experts": 8, "num_experts_per_tok": 3}),
    "olmoe, sums to one, biased": (
        "olmoe",
        {"intermediate_size": 40, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True,
         "attention_bias": True, "tie_word_embeddings": True},
    ),
    "flex_olmo": ("flex_olmo", {"intermediate_size": 40, "num_experts": 8, "num_experts_per_tok": 3}),
    "granitemoe": ("granitemoe", GRANITE),
    "granitemoeshared": ("granitemoeshared", GRANITE | {"shared_intermediate_size": 56}),
    "granitemoeshared, none": ("granitemoeshared", GRANITE | {"shared_intermediate_size": 0, "attention_bias": True}),
    "ernie4_5_moe": ("ernie4_5_moe", ERNIE | {"tie_word_embeddings": True}),
    "ernie4_5_moe, in turn, biased": (
        "ernie4_5_moe",
        ERNIE | {"moe_layer_interval": 2, "moe_num_shared_experts": 0, "use_bias": True, "moe_norm_min": 0.9},
    ),
    "ernie4_5_moe, biased, shared": ("ernie4_5_moe", ERNIE | {"use_bias": True}),
    "glm4_moe": ("glm4_moe", ROUTED | {"head_dim": 16, "use_qk_norm": True}),
    "glm4_moe, as it falls": (
        "glm4_moe",
        ROUTED | {"head_dim": 24, "n_group": 1, "topk_group": 1, "norm_topk_prob": False, "attention_bias": True},
    ),
    "dots1": ("dots1", ROUTED | {"head_dim": 24, "norm_topk_prob": True, "sliding_window": None}),
    "dots1, windows": ("dots1", ROUTED | {"head_dim": 24, "sliding_window": 24, "max_window_layers": 1}),
    "minimax_m2": ("minimax_m2", LOCAL | {"head_dim": 24}),
    "minimax_m2, partly rotated": ("minimax_m2", LOCAL | {"head_dim": 24, "rotary_dim": 12}),
    "gpt_oss": ("gpt_oss", GPT_OSS),
    "gpt_oss, another gate": ("gpt_oss", GPT_OSS | {"swiglu_limit": 1.0, "swiglu_alpha": 1.1}),
    "deepseek_v3": ("deepseek_v3", DEEPSEEK),
    "deepseek_v3, stretched": (
        "deepseek_v3",
        DEEPSEEK | {"rope_interleave": False, "norm_topk_prob": False,
                    "rope_parameters": YARN | {"truncate": True, "mscale": 1.0, "mscale_all_dim": 0.7}},
    ),
    "deepseek_v3, direct": ("deepseek_v3", DEEPSEEK | {"q_lora_rank": None}),
    "deepseek_v2": ("deepseek_v2", LIMITED),
    "deepseek_v2, greedy": (
        "deepseek_v2",
        DEEPSEEK | {"q_lora_rank": None, "topk_method": "greedy",
                    "rope_parameters": YARN | {"truncate": True, "mscale": 0.707, "mscale_all_dim": 0.707}},
    ),
    "phimoe": ("phimoe", LOCAL | {"num_experts_per_tok": 2, "router_jitter_noise": 0.2}),
    "phimoe, biased": (
        "phimoe", LOCAL | {"num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True},
    ),
    "phimoe, long": ("phimoe", LOCAL | {"num_experts_per_tok": 2, "rope_parameters": LONG}),
}  # fmt: skip
"""By name: family and what its configuration says beside the sizes."""


PLAIN = {family: overrides for family, overrides in reversed(MODELS.values())}
"""One model of each family."""


def make_mixture(directory: Path, family: str, seed: int = 0, **overrides: Any) -> Path:
    """Write config.json and safetensors by save_pretrained, and a tokenizer; gives `directory` back."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **(SIZES | overrides))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            _draw(name, tensor.data, inputs_first=family == "gpt_oss")
        model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def _draw(name: str, tensor: Any, *, inputs_first: bool) -> None:
    """Numbers so large that greedy choices are clear, and that each norm, bias and correction shows."""
    if "inv_freq" in name or not tensor.numel():
        return
    if name.endswith("norm.weight"):
        tensor.normal_(1.0, 0.2)
    elif tensor.ndim == 1 or "correction" in name or name.endswith("bias"):
        tensor.normal_(0.0, 0.3)
    else:
        tensor.normal_(0.0, 1.5 * tensor.shape[-2 if tensor.ndim == 3 and inputs_first else -1] ** -0.5)
