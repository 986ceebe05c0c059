"""LFM2 (2511.23404): gated short convolutions, and attention in some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.layer import HeadNorm, Layer
from umbel.ir.recurrence import Recurrence
from umbel.models.config_file import Config, flag_of, number_of, shorten, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

STORED = replace(
    AS_LLAMA,
    products={
        **AS_LLAMA.products,
        "o": ("self_attn.out_proj",),
        "gate_up": ("feed_forward.w1", "feed_forward.w3"),
        "down": ("feed_forward.w2",),
    },
    norms={
        "attn_norm": "operator_norm",
        "mlp_norm": "ffn_norm",
        "q_norm": "self_attn.q_layernorm",
        "k_norm": "self_attn.k_layernorm",
    },
    vectors={"conv": ("conv.conv.weight", 1), "conv_bias": ("conv.conv.bias", 0)},
    recurrent={"qkv": ("conv.in_proj",), "o": ("conv.out_proj",)},
    norm="model.embedding_norm",
)
SIZES = ("block_auto_adjust_ff_dim", "block_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of")


def _layer(config: Config) -> Layer:
    return Layer(head_norm=HeadNorm())


def _conv(config: Config) -> Recurrence:
    channels, taps = size_of(config, "hidden_size"), size_of(config, "conv_L_cache", 3)
    bias = flag_of(config, "conv_bias")
    return Recurrence("short_conv", channels, taps, has_bias=bias, conv_bias=bias)


def _width(config: Config) -> int:
    """Two thirds of what the config says, in whole multiples, unless that is not to be adjusted."""
    stated = size_of(config, "block_ff_dim" if "block_ff_dim" in config else "intermediate_size")
    if not flag_of(config, "block_auto_adjust_ff_dim", default=True):
        return stated
    width, step = int(2 * stated / 3), size_of(config, "block_multiple_of", 256)
    if config.get("block_ffn_dim_multiplier", 1.0) is None:
        return width
    width = int(number_of(config, "block_ffn_dim_multiplier", 1.0, low=1e-3, high=1e3) * width)
    return step * -(-width // step)


def _derive(config: Config) -> Mapping[str, object]:
    """What old files say in other words."""
    tied = {"tie_word_embeddings": config["tie_embedding"]} if "tie_embedding" in config else {}
    return tied if config.get("layer_types") else tied | {"layer_types": _kinds(config)}


def _kinds(config: Config) -> list[str]:
    layers, full = range(size_of(config, "num_hidden_layers")), config.get("full_attn_idxs")
    if full is None:
        return ["full_attention" for _ in layers]
    if not isinstance(full, list) or not all(isinstance(i, int) and i in layers for i in full):
        raise ModelError(f"full_attn_idxs={shorten(full)}: must be a list of layers' numbers below {len(layers)}")
    return ["full_attention" if i in full else "conv" for i in layers]


ROWS: Mapping[str, Family] = {
    "lfm2": Family(
        "Lfm2ForCausalLM",
        frozenset(("conv_L_cache", "conv_bias", "full_attn_idxs", "tie_embedding", *SIZES)),
        _layer,
        stored=STORED,
        bos=1,
        eos=2,
        norm_eps=1e-5,
        rope_theta=1e6,
        recurrent="conv",
        recurrence=_conv,
        width=_width,
        names={"rms_norm_eps": "norm_eps"},
        defaults={"tie_word_embeddings": True},
        derive=_derive,
        refused={"hidden_act": (None, "silu", "swish")},
    ),
}
