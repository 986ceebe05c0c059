"""Tiny random models of any causal type of transformers, made from its config class by the names that sizes have."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

VOCAB_SIZE = 300
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
SIZES: Mapping[str, int] = {
    **dict.fromkeys(LAYERS, 4),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 64),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "mlp_hidden_size", "dff"), 96),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 256),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    "expert_ffn_hidden_size": 32,
    "global_head_dim": 16,
    "head_dim": 16,
    "kv_lora_rank": 16,
    "num_key_value_heads": 2,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "rotary_dim": 16,
    "sliding_window": 21,
    "v_head_dim": 12,
    "vocab_size": VOCAB_SIZE,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
BY_TYPE: Mapping[str, Mapping[str, Any]] = {
    **{key: {"head_dim": 8, "num_key_value_heads": 4} for key in ("axk1", "deepseek_v3", "longcat_flash", "youtu")},
    **{key: {"num_key_value_heads": 4} for key in ("sarvam_mla", "minicpm3", "glm4_moe_lite")},
    "deepseek_v2": {"head_dim": 8, "num_key_value_heads": 4, "num_experts_per_tok": 2, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "ernie4_5_moe": {"moe_layer_start_index": 1},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "moshi": {"sliding_window": 256},
    "xmod": {"default_language": "en_XX"},
}
"""What types need beside sizes: head sizes that belong together, a config class without a usable default."""


def tiny_config(model_type: str, **more: Any) -> PreTrainedConfig:
    """A small config of a type."""
    config_class = CONFIG_MAPPING[model_type]
    usual = config_class()
    has = usual.to_dict()
    chosen = {
        name: size
        for name, size in SIZES.items()
        if name in has and (has[name] is not None or name in ("num_key_value_heads", "head_dim"))
    }
    n_layers = next((chosen[name] for name in LAYERS if name in chosen), 4)
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(kinds := has.get(name), (list, tuple)) and kinds:
            distinct = list(dict.fromkeys(kinds))
            chosen[name] = [distinct[layer % len(distinct)] for layer in range(n_layers)]
    chosen |= {name: token for name, token in IDS.items() if name in has and has[name] is not None}
    if hasattr(usual, "is_decoder"):
        chosen["is_decoder"] = True
    return config_class(**{**chosen, **BY_TYPE.get(model_type, {}), **more})


def tiny_module(model_class: type[PreTrainedModel], config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A module with random weights, large enough that what attention reads decides the answers."""
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        module = model_class._from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for weight in module.parameters():
                weight.mul_(4) if weight.ndim > 1 else weight.add_(torch.randn_like(weight) * 0.1)
    return module


def save_tiny(directory: Path, module: PreTrainedModel) -> Path:
    """A model directory as transformers writes it."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        module.save_pretrained(directory)
    finally:
        if bars:
            logging.enable_progress_bar()
    return directory
