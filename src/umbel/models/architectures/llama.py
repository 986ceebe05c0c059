"""Llama and its relatives: RMSNorm before attention and before a gated MLP, rotary positions over whole heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.layer import Edges, HeadNorm, Layer, Rope
from umbel.models.config_file import Config, flag_of, number_of, shorten, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

WINDOW = frozenset(("sliding_window",))
ASKED_WINDOW = WINDOW | {"use_sliding_window"}
BIASES = frozenset(("attention_bias", "mlp_bias"))
ATTENTION_BIAS = frozenset(("attention_bias",))
TIED = {"tie_word_embeddings": True}
STACKED = replace(
    AS_LLAMA,
    products=dict(AS_LLAMA.products) | {"qkv": ("self_attn.qkv_proj",), "gate_up": ("mlp.gate_up_proj",)},
)
"""Of checkpoints in which query, key and value, and gate and up, are one tensor each."""
AFTER_ROTATION = replace(
    AS_LLAMA,
    norms=dict(AS_LLAMA.norms) | {"q_norm": "self_attn.query_layernorm", "k_norm": "self_attn.key_layernorm"},
)


def llama(config: Config) -> Layer:
    """Biases of attention and of the MLP, as the config says."""
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, mlp_bias=flag_of(config, "mlp_bias"))


def plain(config: Config) -> Layer:
    """No bias at all."""
    return Layer()


def qwen3(config: Config) -> Layer:
    """Qwen3 (2505.09388) has norms of query and key heads."""
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, head_norm=HeadNorm())


def _qwen2(config: Config) -> Layer:
    return Layer(qkv_bias=True)


def _hunyuan(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, head_norm=HeadNorm(is_rotated=True))


def _ernie(config: Config) -> Layer:
    bias = flag_of(config, "use_bias")
    return Layer(qkv_bias=bias, o_bias=bias, mlp_bias=bias, rope=Rope(interleaved=True))


def _seed(config: Config) -> Layer:
    return replace(llama(config), o_bias=flag_of(config, "attention_out_bias"))


def _arcee(config: Config) -> Layer:
    return replace(llama(config), activation="relu2", is_gated=False)


def granite(config: Config) -> Layer:
    """Granite multiplies scores, and what layers add, by numbers of its own."""
    scale, share = (number_of(config, f"{key}_multiplier", 1.0, low=0.0, high=1e6) for key in ("attention", "residual"))
    return replace(llama(config), scale=scale, residual_scale=share)


def granite_edges(config: Config) -> Edges:
    """Multiplied embeddings, and divided logits."""
    scale = number_of(config, "embedding_multiplier", 1.0, low=0.0, high=1e6)
    return Edges(embedding_scale=scale, logit_scale=1 / number_of(config, "logits_scaling", 1.0, low=1e-6, high=1e6))


def _rope_flags(config: Config) -> list[bool]:
    """Whether each layer has rotary positions (SmolLM3): `no_rope_layers` has 1 where it has."""
    n_layers = size_of(config, "num_hidden_layers")
    flags = config.get("no_rope_layers")
    if flags is None:
        step = size_of(config, "no_rope_layer_interval", 4)
        return [bool((layer + 1) % step) for layer in range(n_layers)]
    if not isinstance(flags, list) or len(flags) < n_layers or not all(flag in (0, 1) for flag in flags):
        raise ModelError(f"no_rope_layers={shorten(flags)}: must be 0 or 1 for each of {n_layers} layers")
    return [bool(flag) for flag in flags[:n_layers]]


def _smollm3_kinds(config: Config) -> Mapping[str, object]:
    """Where windows are asked for, layers without positions have them."""
    if config.get("layer_types") or not flag_of(config, "use_sliding_window") or config.get("sliding_window") is None:
        return {}
    return {"layer_types": ["full_attention" if flag else "sliding_attention" for flag in _rope_flags(config)]}


def _without_some_positions(config: Config, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(
        layer if flag else replace(layer, rope=None) for layer, flag in zip(layers, _rope_flags(config), strict=True)
    )


ROWS: Mapping[str, Family] = {
    "llama": Family("LlamaForCausalLM", BIASES, llama, bos=1, eos=2),
    "mistral": Family("MistralForCausalLM", WINDOW, plain, "always", bos=1, eos=2),
    "ministral": Family("MinistralForCausalLM", WINDOW, plain, "typed", bos=1, eos=2),
    "ministral3": Family(
        "Ministral3ForCausalLM",
        WINDOW | {"llama_4_scaling_beta"},
        plain,
        "always",
        head_dim=128,
        bos=1,
        eos=2,
        window_size=None,
        rope_theta=1e6,
        norm_eps=1e-5,
    ),
    "qwen2": Family("Qwen2ForCausalLM", ASKED_WINDOW | {"max_window_layers"}, _qwen2, "asks"),
    "qwen3": Family(
        "Qwen3ForCausalLM", ASKED_WINDOW | {"attention_bias", "max_window_layers"}, qwen3, "asks", head_dim=128
    ),
    "hunyuan_v1_dense": Family(
        "HunYuanDenseV1ForCausalLM",
        ATTENTION_BIAS | {"alpha"},
        _hunyuan,
        stored=AFTER_ROTATION,
        bos=1,
        eos=2,
        norm_eps=1e-5,
    ),
    "ernie4_5": Family(
        "Ernie4_5ForCausalLM",
        frozenset(("use_bias",)),
        _ernie,
        head_dim=128,
        bos=1,
        eos=2,
        rope_theta=5e5,
        norm_eps=1e-5,
        defaults=TIED,
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        BIASES | ASKED_WINDOW | {"no_rope_layers", "no_rope_layer_interval"},
        llama,
        "asks",
        bos=128000,
        eos=128001,
        window_size=None,
        rope_theta=2e6,
        defaults=TIED,
        derive=_smollm3_kinds,
        vary=_without_some_positions,
    ),
    "seed_oss": Family(
        "SeedOssForCausalLM",
        BIASES | {"attention_out_bias"},
        _seed,
        head_dim=128,
        bos=0,
        eos=2,
        defaults={"attention_bias": True},
    ),
    "granite": Family(
        "GraniteForCausalLM",
        BIASES | {"attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"},
        granite,
        bos=1,
        eos=2,
        edges=granite_edges,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        WINDOW,
        plain,
        "always",
        stored=STACKED,
        bos=1,
        eos=32000,
        window_size=None,
        norm_eps=1e-5,
        rotary_share=1.0,
        rope_names={"su": "longrope", "yarn": "longrope"},
    ),
    "arcee": Family("ArceeForCausalLM", BIASES, _arcee, bos=128000, eos=128001, norm_eps=1e-5),
}
