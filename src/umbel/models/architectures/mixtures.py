"""Mixtures of experts in place of the MLP of Llama's relatives."""

from __future__ import annotations

from collections.abc import Mapping

from umbel.ir.layer import Layer
from umbel.models.architectures.llama import ASKED_WINDOW, WINDOW, qwen3
from umbel.models.config_file import Config
from umbel.models.experts_config import COUNTS, mixtral_experts, qwen3_moe_experts
from umbel.models.family import Family

EXPERTS = frozenset((*COUNTS, "num_experts_per_tok"))


def _mixtral(config: Config) -> Layer:
    return Layer()


ROWS: Mapping[str, Family] = {
    "mixtral": Family(
        "MixtralForCausalLM",
        WINDOW | EXPERTS,
        _mixtral,
        "always",
        bos=1,
        eos=2,
        window_size=None,
        rope_theta=1e6,
        norm_eps=1e-5,
        experts=mixtral_experts,
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        ASKED_WINDOW
        | EXPERTS
        | {"attention_bias", "decoder_sparse_step", "mlp_only_layers", "moe_intermediate_size", "norm_topk_prob"},
        qwen3,
        "all",
        experts=qwen3_moe_experts,
    ),
}
