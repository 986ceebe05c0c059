"""Mixtures of experts in place of the MLP of Llama's relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import Layer
from umbel.models import experts_config as read
from umbel.models.architectures.llama import ASKED_WINDOW, WINDOW, qwen3
from umbel.models.config_file import Config
from umbel.models.expert_parts import own_experts
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

EXPERTS = frozenset((*read.COUNTS, read.PER_TOKEN))
AS_MIXTRAL = replace(
    AS_LLAMA,
    products={**AS_LLAMA.products, "router": ("block_sparse_moe.gate",)},
    experts=own_experts("block_sparse_moe", "w1", "w3", "w2"),
)
AS_QWEN = replace(
    AS_LLAMA,
    products={**AS_LLAMA.products, "router": ("mlp.gate",)},
    experts=own_experts("mlp", "gate_proj", "up_proj", "down_proj"),
)


def _mixtral(config: Config) -> Layer:
    return Layer()


ROWS: Mapping[str, Family] = {
    "mixtral": Family(
        "MixtralForCausalLM",
        WINDOW | EXPERTS,
        _mixtral,
        "always",
        stored=AS_MIXTRAL,
        bos=1,
        eos=2,
        window_size=None,
        rope_theta=1e6,
        norm_eps=1e-5,
        experts=read.mixtral_experts,
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        ASKED_WINDOW
        | EXPERTS
        | {"attention_bias", "decoder_sparse_step", "mlp_only_layers", "moe_intermediate_size", "norm_topk_prob"},
        qwen3,
        "all",
        stored=AS_QWEN,
        experts=read.qwen3_moe_experts,
    ),
}
