"""Models that have Mamba-2 in most layers and attention in a few: Granite 4.0's hybrids, and Bamba."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from umbel.errors import ModelError
from umbel.ir.experts import Experts
from umbel.ir.layer import Layer
from umbel.ir.recurrence import Recurrence
from umbel.models import experts_config as read
from umbel.models.architectures.llama import granite, granite_edges, llama
from umbel.models.architectures.mixtures import AS_GRANITE, GRANITE
from umbel.models.config_file import Config, flag_of, shorten, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

MAMBA = {
    "mamba_d_conv": 4,
    "mamba_d_state": 256,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_n_heads": 128,
}
NO_LIMIT = (None, [0.0, inf], [0.0, {"__float__": "Infinity"}])  # as transformers writes it, too
AS_HYBRID = replace(
    AS_GRANITE,
    products={**AS_GRANITE.products, "gate_up": ("shared_mlp.input_linear",), "down": ("shared_mlp.output_linear",)},
    recurrent={"qkv": ("mamba.in_proj",), "o": ("mamba.out_proj",)},
    vectors={
        "conv": ("mamba.conv1d.weight", 1),
        "conv_bias": ("mamba.conv1d.bias", 0),
        "decay": ("mamba.A_log", 0),
        "step_bias": ("mamba.dt_bias", 0),
        "skip": ("mamba.D", 0),
        "out_norm": ("mamba.norm.weight", 0),
    },
)


AS_BAMBA = replace(
    AS_HYBRID,
    products={
        **AS_LLAMA.products,
        "gate_up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
        "down": ("feed_forward.down_proj",),
    },
    norms={**AS_LLAMA.norms, "mlp_norm": "pre_ff_layernorm"},
    norm="model.final_layernorm",
    experts=None,
)
KEYS = frozenset(("mamba_conv_bias", "mamba_d_head", "mamba_proj_bias", *MAMBA))
REFUSED = {"time_step_limit": NO_LIMIT, "hidden_act": (None, "silu", "swish")}


def _layer(config: Config) -> Layer:
    kind = config.get("position_embedding_type")
    if kind not in (None, "rope", "nope"):
        raise ModelError(f"position_embedding_type={shorten(kind)}: must be 'rope', 'nope' or null")
    layer = granite(config)
    return layer if kind == "rope" else replace(layer, rope=None)


def mamba2(config: Config) -> Recurrence:
    """Mamba-2 as most hybrids say it."""
    taps, key_dim, expand, groups, heads = (size_of(config, *each) for each in MAMBA.items())
    width = expand * size_of(config, "hidden_size")
    value_dim = width // heads if config.get("mamba_d_head", "auto") == "auto" else size_of(config, "mamba_d_head")
    if heads * value_dim != width or heads % groups:
        raise ModelError(f"mamba_n_heads={heads} of {value_dim} in {groups} groups: not the {width} numbers of a token")
    return Recurrence(
        "mamba2",
        channels=width + 2 * groups * key_dim,
        taps=taps,
        has_bias=flag_of(config, "mamba_proj_bias"),
        conv_bias=flag_of(config, "mamba_conv_bias", default=True),
        heads=heads,
        key_heads=groups,
        key_dim=key_dim,
        value_dim=value_dim,
    )


def _experts(config: Config, n_layers: int) -> Experts | None:
    return read.granite_shared_experts(config, n_layers) if _has_experts(config) else None


def _has_experts(config: Config) -> bool:
    return size_of(config, "num_local_experts", low=0) > 0


def _width(config: Config) -> int:
    """The width of the MLP that stands where there are no experts."""
    return size_of(config, "intermediate_size" if _has_experts(config) else "shared_intermediate_size")


def _bamba(config: Config) -> Mapping[str, object]:
    """Which layers have attention."""
    layers, full = range(size_of(config, "num_hidden_layers")), config.get("attn_layer_indices") or []
    if not isinstance(full, list) or not all(isinstance(i, int) and i in layers for i in full):
        raise ModelError(f"attn_layer_indices={shorten(full)}: must be a list of layers' numbers below {len(layers)}")
    kinds = ["full_attention" if i in full else "linear_attention" for i in layers]
    return {"layer_types": kinds}


ROWS: Mapping[str, Family] = {
    "granitemoehybrid": Family(
        "GraniteMoeHybridForCausalLM",
        GRANITE | KEYS | {"position_embedding_type", "shared_intermediate_size"},
        _layer,
        stored=AS_HYBRID,
        bos=1,
        eos=2,
        recurrent="linear_attention",
        recurrence=mamba2,
        experts=_experts,
        width=_width,
        edges=granite_edges,
        defaults={"num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 1024},
        refused=REFUSED,
    ),
    "bamba": Family(
        "BambaForCausalLM",
        KEYS | {"attention_bias", "attn_layer_indices", "mlp_bias"},
        llama,
        stored=AS_BAMBA,
        bos=1,
        eos=2,
        norm_eps=1e-5,
        rotary_share=0.5,
        recurrent="linear_attention",
        recurrence=mamba2,
        derive=_bamba,
        refused=REFUSED,
    ),
}
