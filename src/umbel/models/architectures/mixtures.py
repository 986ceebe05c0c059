"""Mixtures of experts with softmax scores in place of the MLP of Llama's relatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import Edges, HeadNorm, Layer, Norm, Rope
from umbel.models import experts_config as read
from umbel.models.architectures.llama import ASKED_WINDOW, ATTENTION_BIAS, WINDOW, granite, granite_edges, plain, qwen3
from umbel.models.architectures.olmo import STORED as AS_OLMO
from umbel.models.architectures.olmo import olmo2
from umbel.models.config_file import Config, flag_of, size_of
from umbel.models.expert_parts import StoredExperts, own_experts
from umbel.models.family import Family
from umbel.models.layer_config import FULL, SLIDING
from umbel.models.stored import AS_LLAMA, Stored

EXPERTS = frozenset((*read.COUNTS, read.PER_TOKEN))
IN_SOME_LAYERS = EXPERTS | {"decoder_sparse_step", "mlp_only_layers", "moe_intermediate_size", "norm_topk_prob"}
GRANITE = (
    EXPERTS | ATTENTION_BIAS | {"attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"}
)
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def stored_as(stored: Stored, block: str, *expert: str, shared: str = "", correction: str = "") -> Stored:
    """Other names for the block of a layer: gate, up and down of an `expert` and of a `shared` one; its router is the
    "gate"."""
    gate, up, down = expert
    products = {**stored.products, "router": (f"{block}.gate",), "shared_gate": (f"{block}.{shared}_gate",)}
    products |= {"shared_gate_up": (f"{block}.{shared}.{gate}", f"{block}.{shared}.{up}")}
    products |= {"shared_down": (f"{block}.{shared}.{down}",)}
    vectors = {"router_correction": (f"{block}.{correction}", 0)}
    return replace(stored, products=products, experts=own_experts(block, gate, up, down), vectors=vectors)


AS_MIXTRAL = stored_as(AS_LLAMA, "block_sparse_moe", "w1", "w3", "w2", correction="e_score_correction_bias")
AS_QWEN = stored_as(AS_LLAMA, "mlp", *PROJECTIONS, shared="shared_expert")
AS_GRANITE = replace(
    AS_LLAMA,
    products={
        **AS_LLAMA.products,
        "router": ("block_sparse_moe.router.layer",),
        "shared_gate_up": ("shared_mlp.input_linear",),
        "shared_down": ("shared_mlp.output_linear",),
    },
    experts=StoredExperts(
        ("block_sparse_moe.input_linear.weight",), ("block_sparse_moe.output_linear.weight",), "rows"
    ),
)


def _qwen2_moe(config: Config) -> Layer:
    return Layer(qkv_bias=flag_of(config, "qkv_bias", default=True))


def _qwen2_moe_kinds(config: Config) -> Mapping[str, object]:
    """Where windows are asked for, every other one of the first `max_window_layers` has one."""
    if config.get("layer_types") or not flag_of(config, "use_sliding_window"):
        return {}
    first = size_of(config, "max_window_layers", 28, low=0)
    layers = range(size_of(config, "num_hidden_layers"))
    return {"layer_types": [SLIDING if layer % 2 == 0 and layer < first else FULL for layer in layers]}


def _olmoe(config: Config) -> Layer:
    """OLMoE (2409.02060) norms queries and keys of all heads at once."""
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, head_norm=HeadNorm(over="all"))


def _phimoe(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias")
    return Layer(Norm("layer", has_bias=True), qkv_bias=bias, o_bias=bias)


def _phimoe_edges(config: Config) -> Edges:
    return Edges(head_bias=flag_of(config, "lm_head_bias"))


def _minimax_m2(config: Config) -> Layer:
    return Layer(head_norm=HeadNorm(over="all"), rope=Rope())


def _rotary_share(config: Config) -> Mapping[str, object]:
    """How much of each head turns, which old files say as a number of dimensions."""
    dim = config.get("rotary_dim")
    return {} if dim is None else {"partial_rotary_factor": size_of(config, "rotary_dim") / size_of(config, "head_dim")}


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
    "phimoe": Family(
        "PhimoeForCausalLM",
        WINDOW | EXPERTS | ATTENTION_BIAS | {"lm_head_bias", "long_mscale", "router_jitter_noise", "short_mscale"},
        _phimoe,
        "always",
        stored=AS_MIXTRAL,
        bos=1,
        eos=2,
        window_size=None,
        rope_theta=1e6,
        norm_eps=1e-5,
        experts=read.phimoe_experts,
        edges=_phimoe_edges,
    ),
    "minimax_m2": Family(
        "MiniMaxM2ForCausalLM",
        EXPERTS | {"rotary_dim"},
        _minimax_m2,
        stored=AS_MIXTRAL,
        head_dim=128,
        bos=200034,
        eos=200020,
        rope_theta=5e6,
        experts=read.minimax_m2_experts,
        derive=_rotary_share,
        rotary_share=1.0,
        refused={
            "qk_norm_type": (None, "per_layer"),
            "scoring_func": (None, "sigmoid"),
            "shared_intermediate_size": (None, 0),
            "use_qk_norm": (None, True),
            "use_routing_bias": (None, True),
        },
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        ASKED_WINDOW | IN_SOME_LAYERS | ATTENTION_BIAS,
        qwen3,
        "all",
        stored=AS_QWEN,
        experts=read.qwen3_moe_experts,
    ),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM",
        ASKED_WINDOW | IN_SOME_LAYERS | {"max_window_layers", "qkv_bias", "shared_expert_intermediate_size"},
        _qwen2_moe,
        "asks",
        stored=AS_QWEN,
        experts=read.qwen2_moe_experts,
        derive=_qwen2_moe_kinds,
    ),
    "olmoe": Family(
        "OlmoeForCausalLM",
        EXPERTS | ATTENTION_BIAS | {"norm_topk_prob"},
        _olmoe,
        stored=AS_QWEN,
        eos=50279,
        norm_eps=1e-5,
        experts=read.olmoe_experts,
        refused={"clip_qkv": (None,)},
    ),
    "flex_olmo": Family(
        "FlexOlmoForCausalLM",
        EXPERTS | ATTENTION_BIAS | {"norm_topk_prob"},
        olmo2,
        stored=stored_as(AS_OLMO, "mlp", *PROJECTIONS),
        eos=100257,
        rope_theta=5e5,
        experts=read.olmoe_experts,
    ),
    "granitemoe": Family(
        "GraniteMoeForCausalLM",
        GRANITE,
        granite,
        stored=AS_GRANITE,
        bos=1,
        eos=2,
        experts=read.mixtral_experts,
        edges=granite_edges,
    ),
    "granitemoeshared": Family(
        "GraniteMoeSharedForCausalLM",
        GRANITE | {"shared_intermediate_size"},
        granite,
        stored=AS_GRANITE,
        bos=1,
        eos=2,
        experts=read.granite_shared_experts,
        edges=granite_edges,
    ),
}
