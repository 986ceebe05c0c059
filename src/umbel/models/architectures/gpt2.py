"""GPT-2, OPT (2205.01068) and StarCoder2 (2402.19173): LayerNorm with a bias, and an MLP without a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.layer import Edges, Layer, Norm
from umbel.models.config_file import Config, flag_of, plain_heads, shorten, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA, Stored

WITH_BIAS = Norm("layer", has_bias=True)
GPT2 = Stored(
    products={"qkv": ("attn.c_attn",), "o": ("attn.c_proj",), "up": ("mlp.c_fc",), "down": ("mlp.c_proj",)},
    norms={"attn_norm": "ln_1", "mlp_norm": "ln_2"},
    embed="transformer.wte",
    norm="transformer.ln_f",
    positions="transformer.wpe",
    layer="transformer.h.{}.",
    is_turned=True,
    ignored=r".*\.attn\.(masked_)?bias",
)
OPT = Stored(
    products=dict(AS_LLAMA.products) | {"o": ("self_attn.out_proj",), "up": ("fc1",), "down": ("fc2",)},
    norms={"attn_norm": "self_attn_layer_norm", "mlp_norm": "final_layer_norm"},
    embed="model.decoder.embed_tokens",
    norm="model.decoder.final_layer_norm",
    positions="model.decoder.embed_positions",
    layer="model.decoder.layers.{}.",
)
STARCODER2 = replace(AS_LLAMA, products=dict(AS_LLAMA.products) | {"up": ("mlp.c_fc",), "down": ("mlp.c_proj",)})


def _plain(norm: Norm, activation: str, *, bias: bool) -> Layer:
    return Layer(norm, qkv_bias=bias, o_bias=bias, mlp_bias=bias, activation=activation, is_gated=False)


def _gpt2(config: Config) -> Layer:
    scaled = config.get("scale_attn_weights") is None or flag_of(config, "scale_attn_weights")
    return replace(_plain(WITH_BIAS, "gelu_new", bias=True), rope=None, scale=None if scaled else 1.0)


def _gpt2_sizes(config: Config) -> Mapping[str, object]:
    return {**plain_heads(config), "intermediate_size": config.get("n_inner") or 4 * size_of(config, "hidden_size")}


def _by_depth(config: Config, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Scores of layer `i` divided by `i + 1`, where the config says so."""
    if not flag_of(config, "scale_attn_by_inverse_layer_idx"):
        return layers
    head_dim = size_of(config, "head_dim")
    scales = [layer.scale or head_dim**-0.5 for layer in layers]
    return tuple(
        replace(layer, scale=scale / (i + 1)) for i, (layer, scale) in enumerate(zip(layers, scales, strict=True))
    )


def _learned_positions(config: Config) -> Edges:
    return Edges(position_offset=0)


def _opt(config: Config) -> Layer:
    norm = WITH_BIAS if flag_of(config, "layer_norm_elementwise_affine") else Norm("layer", has_weight=False)
    return replace(_plain(norm, "relu", bias=flag_of(config, "enable_bias")), rope=None)


def _opt_sizes(config: Config) -> Mapping[str, object]:
    hidden = size_of(config, "hidden_size")
    if config.get("word_embed_proj_dim") not in (None, hidden):
        raise ModelError(f"word_embed_proj_dim={shorten(config['word_embed_proj_dim'])}: only {hidden} is supported")
    return plain_heads(config)


def _opt_positions(config: Config) -> Edges:
    return Edges(position_offset=2)


def _starcoder2(config: Config) -> Layer:
    return _plain(WITH_BIAS, "gelu_pytorch_tanh", bias=flag_of(config, "use_bias"))


ROWS: Mapping[str, Family] = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        frozenset(("scale_attn_by_inverse_layer_idx", "scale_attn_weights")),
        _gpt2,
        stored=GPT2,
        bos=50256,
        eos=50256,
        norm_eps=1e-5,
        edges=_learned_positions,
        vary=_by_depth,
        names={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
            "intermediate_size": "n_inner",
            "rms_norm_eps": "layer_norm_epsilon",
            "hidden_act": "activation_function",
        },
        defaults={"tie_word_embeddings": True},
        derive=_gpt2_sizes,
        refused={"add_cross_attention": (None, False)},
    ),
    "opt": Family(
        "OPTForCausalLM",
        frozenset(("enable_bias", "layer_norm_elementwise_affine", "word_embed_proj_dim")),
        _opt,
        stored=OPT,
        bos=2,
        eos=2,
        norm_eps=1e-5,
        edges=_opt_positions,
        names={"intermediate_size": "ffn_dim", "hidden_act": "activation_function"},
        defaults={"tie_word_embeddings": True, "enable_bias": True, "layer_norm_elementwise_affine": True},
        derive=_opt_sizes,
        refused={"do_layer_norm_before": (None, True), "_remove_final_layer_norm": (None, False)},
    ),
    "starcoder2": Family(
        "Starcoder2ForCausalLM",
        frozenset(("sliding_window", "use_bias")),
        _starcoder2,
        "always",
        stored=STARCODER2,
        bos=50256,
        eos=50256,
        window_size=None,
        norm_eps=1e-5,
        names={"rms_norm_eps": "norm_epsilon"},
        defaults={"tie_word_embeddings": True, "use_bias": True},
    ),
}
