"""Tiny random models of every family that the decoder computes, made and saved by transformers' own classes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import write_tokenizer

VOCAB = 320
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 319,
    "pad_token_id": None,
}
BIASED = {"attention_bias": True, "mlp_bias": True}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 8 for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 256,
    "rope_theta": 1e4,
}
MIXED = ["full_attention", "sliding_attention", "sliding_attention"]
FALCON = {"num_kv_heads": 2, "ffn_hidden_size": 96, "bias": True}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", BIASED),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama-dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}}),
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64}}),
    "llama-yarn": ("llama", {"rope_parameters": YARN}),
    "llama-yarn-untruncated": ("llama", {"rope_parameters": YARN | {"truncate": False, "beta_fast": 16.0}}),
    "qwen3-yarn-mscale": ("qwen3", {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.7}, "head_dim": 32}),
    "llama-longrope": ("llama", {"rope_parameters": LONG}),
    "mistral": ("mistral", {"sliding_window": 24, "head_dim": 24}),
    "qwen2": ("qwen2", {}),
    "qwen2-mixed": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3-mixed": ("qwen3", {"use_sliding_window": True, "sliding_window": 24, "layer_types": MIXED, "head_dim": 32}),
    "ministral": ("ministral", {"sliding_window": 24, "layer_types": MIXED, "head_dim": 16}),
    "ministral3": (
        "ministral3",
        {
            "head_dim": 16,
            "rope_parameters": YARN | {"llama_4_scaling_beta": 0.5, "original_max_position_embeddings": 24},
        },
    ),
    "hunyuan": ("hunyuan_v1_dense", {"attention_bias": True, "head_dim": 16}),
    "hunyuan-alpha": (
        "hunyuan_v1_dense",
        {"head_dim": 16, "rope_parameters": {"rope_type": "dynamic", "alpha": 50.0, "factor": 1.0, "rope_theta": 1e4}},
    ),
    "ernie": ("ernie4_5", {"use_bias": True, "head_dim": 16}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "smollm3-windows": (
        "smollm3",
        BIASED | {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 24},
    ),
    "seed": ("seed_oss", {"head_dim": 16, "attention_out_bias": True, "mlp_bias": True}),
    "granite": (
        "granite",
        BIASED
        | {
            "attention_multiplier": 0.2,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.4,
        },
    ),
    "phi3": ("phi3", {"sliding_window": 24}),
    "phi3-longrope": (
        "phi3",
        {
            "rope_parameters": LONG
            | {"short_factor": LONG["short_factor"][:6], "long_factor": LONG["long_factor"][:6]},
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 256,
        },
    ),
    "arcee": ("arcee", BIASED),
    "olmo2": ("olmo2", {"attention_bias": True}),
    "olmo3": ("olmo3", {"sliding_window": 24, "num_hidden_layers": 4}),
    "olmo3-yarn": (
        "olmo3",
        {
            "sliding_window": 24,
            "num_hidden_layers": 4,
            "rope_parameters": {
                "full_attention": YARN | {"attention_factor": 1.2},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "gemma": ("gemma", {"head_dim": 32, "attention_bias": True}),
    "gemma2": (
        "gemma2",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 40,
            "sliding_window": 24,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 8.0,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {"head_dim": 32, "query_pre_attn_scalar": 40, "sliding_window": 24, "layer_types": MIXED},
    ),
    "gemma3-linear": (
        "gemma3_text",
        {
            "head_dim": 32,
            "sliding_window": 24,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
            },
        },
    ),
    "glm": ("glm", {"head_dim": 16, "attention_bias": True}),
    "glm4": ("glm4", {"head_dim": 16, "attention_bias": True}),
    "cohere": ("cohere", {"use_qk_norm": True, "logit_scale": 0.5, "attention_bias": True}),
    "cohere-plain": ("cohere", {"num_key_value_heads": 4}),
    "cohere2": ("cohere2", {"sliding_window": 24, "num_hidden_layers": 4}),
    "starcoder2": ("starcoder2", {"sliding_window": 24}),
    "starcoder2-unbiased": ("starcoder2", {"use_bias": False}),
    "stablelm": ("stablelm", {"use_qkv_bias": True}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True, "num_key_value_heads": 2}),
    "neox": ("gpt_neox", {}),
    "neox-serial": ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),
    "gpt2-scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False, "n_inner": 80}),
    "opt": ("opt", {"ffn_dim": 96}),
    "opt-plain": ("opt", {"ffn_dim": 96, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    "phi": ("phi", {"num_key_value_heads": 2}),
    "phi-normed": ("phi", {"qk_layernorm": True}),
    "lfm2": ("lfm2", {"num_hidden_layers": 4, "full_attn_idxs": [1, 3], "block_multiple_of": 8, "conv_bias": True}),
    "lfm2-unadjusted": (
        "lfm2",
        {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False, "conv_L_cache": 5},
    ),
    "qwen3.5": (
        "qwen3_5_text",
        {"num_hidden_layers": 4, "full_attention_interval": 2, "head_dim": 32, "linear_num_key_heads": 2}
        | {"linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 24},
    ),
    "qwen3.5-ends-so": (
        "qwen3_5_text",
        {"layer_types": ["linear_attention", "full_attention", "linear_attention"], "attention_bias": True}
        | {"linear_num_key_heads": 3, "linear_num_value_heads": 3, "linear_key_head_dim": 20, "head_dim": 16}
        | {"linear_value_head_dim": 12, "linear_conv_kernel_dim": 3},
    ),
    "qwen3-next": (
        "qwen3_next",
        {"num_hidden_layers": 4, "full_attention_interval": 2, "head_dim": 32, "linear_num_key_heads": 2}
        | {"linear_num_value_heads": 6, "linear_key_head_dim": 24, "linear_value_head_dim": 12, "num_experts": 8}
        | {"num_experts_per_tok": 3, "moe_intermediate_size": 40, "shared_expert_intermediate_size": 56}
        | {"mlp_only_layers": [1]},
    ),
    "granite-hybrid": (
        "granitemoehybrid",
        {"layer_types": ["mamba", "attention", "mamba"], "num_local_experts": 0, "shared_intermediate_size": 88}
        | {"mamba_n_heads": 8, "mamba_d_state": 24, "mamba_n_groups": 2, "mamba_proj_bias": True}
        | {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4},
    ),
    "granite-hybrid-experts": (
        "granitemoehybrid",
        {"layer_types": ["mamba", "mamba", "attention"], "num_local_experts": 4, "shared_intermediate_size": 40}
        | {"mamba_n_heads": 4, "mamba_d_state": 16, "mamba_conv_bias": False, "position_embedding_type": "rope"},
    ),
    "bamba": (
        "bamba",
        {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_state": 16, "mamba_n_groups": 2} | BIASED,
    ),
    "falcon-7b": ("falcon", FALCON | {"bias": False}),
    "falcon-40b": ("falcon", FALCON | {"new_decoder_architecture": True}),
    "falcon-one-norm": ("falcon", FALCON | {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
    "falcon-serial": ("falcon", FALCON | {"num_kv_heads": 4, "multi_query": False, "parallel_attn": False}),
}
"""Model type and what its config differs in from `SIZES`."""
FOREIGN: dict[str, dict[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }
}
"""Names that a family has for some of the sizes."""
WITHOUT: dict[str, tuple[str, ...]] = {
    "falcon": ("num_key_value_heads", "intermediate_size"),
    "gpt2": ("num_key_value_heads", "intermediate_size"),
    "gpt_neox": ("num_key_value_heads",),
    "opt": ("num_key_value_heads", "intermediate_size"),
}
"""Sizes that a family does not have."""


def make_zoo_model(directory: Path, name: str, seed: int = 0, **overrides: Any) -> Any:
    """Save the model of a case with its config, and give it, in float32 with eager attention."""
    transformers = pytest.importorskip("transformers")
    kind, own = CASES[name]
    foreign, without = FOREIGN.get(kind, {}), WITHOUT.get(kind, ())
    sizes = {foreign.get(key, key): value for key, value in SIZES.items() if key not in without}
    config = transformers.AutoConfig.for_model(kind, **(sizes | own | overrides))
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    scramble(model)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return model


def sum_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have transformers compute gated delta rules token by token, as when it decodes: what it does by chunks in prompts
    differs from that by 3e-4 in logits."""
    for name in ("qwen3_5", "qwen3_next"):
        module = import_module(f"transformers.models.{name}.modeling_{name}")
        monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", module.torch_recurrent_gated_delta_rule)


@torch.no_grad()
def scramble(model: torch.nn.Module) -> None:
    """Weights so large that greedy choices are clear, and norms and biases that show."""
    for name, weight in model.named_parameters():
        if weight.ndim == 1 or "norm" in name:
            weight.add_(torch.randn_like(weight) * 0.3)
        else:
            weight.copy_(torch.randn_like(weight) * 1.5 * min(weight.shape) ** -0.5)
