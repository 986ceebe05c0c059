"""Mixtures of experts in place of the MLP of Llama's relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.layer import HeadNorm, Layer
from umbel.models import experts_config as read
from umbel.models.architectures.llama import ASKED_WINDOW, WINDOW, plain, qwen3
from umbel.models.config_file import Config, flag_of, shorten, size_of
from umbel.models.expert_parts import own_experts
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA, Stored

EXPERTS = frozenset((*read.COUNTS, read.PER_TOKEN))
IN_SOME_LAYERS = EXPERTS | {"decoder_sparse_step", "mlp_only_layers", "moe_intermediate_size", "norm_topk_prob"}
ROUTED = EXPERTS | {
    "first_k_dense_replace", "moe_intermediate_size", "n_group", "n_routed_experts", "n_shared_experts",
    "norm_topk_prob", "routed_scaling_factor", "topk_group",
}  # fmt: skip


def _stored(block: str, router: str, *expert: str, shared: str = "", correction: str = "") -> Stored:
    """Names as in Llama but for the block's: its router, gate, up and down of an `expert` and of a `shared` one."""
    gate, up, down = expert
    products = {**AS_LLAMA.products, "router": (f"{block}.{router}",), "shared_gate": (f"{block}.{shared}_gate",)}
    products |= {"shared_gate_up": (f"{block}.{shared}.{gate}", f"{block}.{shared}.{up}")}
    products |= {"shared_down": (f"{block}.{shared}.{down}",)}
    vectors = {"router_correction": (f"{block}.{correction}", 0)}
    return replace(AS_LLAMA, products=products, experts=own_experts(block, gate, up, down), vectors=vectors)


AS_MIXTRAL = _stored("block_sparse_moe", "gate", "w1", "w3", "w2")
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
AS_QWEN = _stored("mlp", "gate", *PROJECTIONS, shared="shared_expert")
AS_DEEPSEEK = _stored("mlp", "gate", *PROJECTIONS, shared="shared_experts", correction="gate.e_score_correction_bias")


def _qwen2_moe(config: Config) -> Layer:
    if flag_of(config, "use_sliding_window"):
        raise ModelError("use_sliding_window=True: of these models every other layer then has one: not supported")
    return Layer(qkv_bias=flag_of(config, "qkv_bias", default=True))


def _dots1(config: Config) -> Layer:
    first = size_of(config, "max_window_layers", 62, low=0)
    if config.get("sliding_window", 4096) is not None and first < size_of(config, "num_hidden_layers"):
        raise ModelError(f"max_window_layers={first}: layers with and without a sliding window are not supported")
    return qwen3(config)


def _olmoe(config: Config) -> Layer:
    """OLMoE (2409.02060) norms queries and keys of all heads at once."""
    if config.get("clip_qkv") is not None:
        raise ModelError(f"clip_qkv={shorten(config['clip_qkv'])}: queries, keys and values are not clipped here")
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, head_norm=HeadNorm(over="all"))


ROWS: Mapping[str, Family] = {
    "mixtral": Family(
        "MixtralForCausalLM",
        WINDOW | EXPERTS,
        plain,
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
        ASKED_WINDOW | IN_SOME_LAYERS | {"attention_bias"},
        qwen3,
        "all",
        stored=AS_QWEN,
        experts=read.qwen3_moe_experts,
    ),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM",
        ASKED_WINDOW | IN_SOME_LAYERS | {"max_window_layers", "qkv_bias", "shared_expert_intermediate_size"},
        _qwen2_moe,
        stored=AS_QWEN,
        experts=read.qwen2_moe_experts,
    ),
    "olmoe": Family(
        "OlmoeForCausalLM",
        EXPERTS | {"attention_bias", "clip_qkv", "norm_topk_prob"},
        _olmoe,
        stored=AS_QWEN,
        eos=50279,
        norm_eps=1e-5,
        experts=read.olmoe_experts,
    ),
    "dots1": Family(
        "Dots1ForCausalLM",
        WINDOW | ROUTED | {"attention_bias", "max_window_layers"},
        _dots1,
        stored=AS_DEEPSEEK,
        experts=read.dots1_experts,
    ),
}
