"""Models whose attention and MLP can read the same hidden states, and are added at once (GPT-J's parallel layers)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.layer import Edges, HeadNorm, Layer, Norm, Rope
from umbel.models.config_file import Config, even_heads, flag_of, number_of, plain_heads, shorten, size_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA, Stored

MEAN = Norm("layer")  # without a bias
WITH_BIAS = Norm("layer", has_bias=True)
ONE_NORM = ("attn_norm",)
EPS = {"rms_norm_eps": "layer_norm_eps"}
PHI = Stored(
    products=dict(AS_LLAMA.products) | {"o": ("self_attn.dense",), "up": ("mlp.fc1",), "down": ("mlp.fc2",)},
    norms=dict(AS_LLAMA.norms) | {"q_norm": "self_attn.q_layernorm", "k_norm": "self_attn.k_layernorm"},
    norm="model.final_layernorm",
)
STABLELM = replace(
    AS_LLAMA,
    norms=dict(AS_LLAMA.norms)
    | {"q_norm": "self_attn.q_layernorm.norms.{}", "k_norm": "self_attn.k_layernorm.norms.{}"},
)
NEOX = Stored(
    products={
        "qkv": ("attention.query_key_value",),
        "o": ("attention.dense",),
        "up": ("mlp.dense_h_to_4h",),
        "down": ("mlp.dense_4h_to_h",),
    },
    norms=AS_LLAMA.norms,
    embed="gpt_neox.embed_in",
    norm="gpt_neox.final_layer_norm",
    head="embed_out",
    layer="gpt_neox.layers.{}.",
    is_grouped=True,
    ignored=r".*\.(rotary_emb\.inv_freq|attention\.(masked_)?bias)",
)
FALCON = Stored(
    products={
        "qkv": ("self_attention.query_key_value",),
        "o": ("self_attention.dense",),
        "up": ("mlp.dense_h_to_4h",),
        "down": ("mlp.dense_4h_to_h",),
    },
    norms=AS_LLAMA.norms,
    embed="transformer.word_embeddings",
    norm="transformer.ln_f",
    layer="transformer.h.{}.",
    two_norms={"attn_norm": "ln_attn", "mlp_norm": "ln_mlp"},
    is_grouped=True,
)


def _cohere(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias")
    norm = HeadNorm(MEAN, "heads") if flag_of(config, "use_qk_norm") else None
    rope = Rope(interleaved=True)
    return Layer(MEAN, ONE_NORM, norm, is_parallel=True, qkv_bias=bias, o_bias=bias, rope=rope)


def _cohere_edges(config: Config) -> Edges:
    return Edges(logit_scale=number_of(config, "logit_scale", 1.0, low=0.0, high=1e6))


def _positions_in_windows(config: Config, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers that see everything have no positions (Command R7B)."""
    return tuple(layer if layer.window is not None else replace(layer, rope=None) for layer in layers)


def _stablelm(config: Config) -> Layer:
    norm = HeadNorm(MEAN, "heads") if flag_of(config, "qk_layernorm") else None
    layer = Layer(WITH_BIAS, head_norm=norm, qkv_bias=flag_of(config, "use_qkv_bias"))
    return replace(layer, is_parallel=True, norms=ONE_NORM) if flag_of(config, "use_parallel_residual") else layer


def _neox(config: Config) -> Layer:
    bias, parallel = flag_of(config, "attention_bias"), flag_of(config, "use_parallel_residual")
    return Layer(
        WITH_BIAS, is_parallel=parallel, qkv_bias=bias, o_bias=bias, mlp_bias=True, activation="gelu", is_gated=False
    )


def _phi(config: Config) -> Layer:
    norm = HeadNorm(WITH_BIAS) if flag_of(config, "qk_layernorm") else None
    layer = Layer(WITH_BIAS, ONE_NORM, norm, is_parallel=True, activation="gelu_new", is_gated=False)
    return replace(layer, qkv_bias=True, o_bias=True, mlp_bias=True)


def _phi_edges(config: Config) -> Edges:
    return Edges(head_bias=True)


def _falcon(config: Config) -> Layer:
    bias, is_new = flag_of(config, "bias"), flag_of(config, "new_decoder_architecture")
    parallel, norms = flag_of(config, "parallel_attn"), config.get("num_ln_in_parallel_attn")
    if norms not in ((None, 1, 2) if is_new else (None, 1)) or (is_new and not parallel):
        raise ModelError(f"num_ln_in_parallel_attn={shorten(norms)}, parallel_attn={parallel}: do not go together here")
    has_two = not parallel or (is_new and norms != 1)
    layer = Layer(WITH_BIAS, is_parallel=parallel, activation="gelu", is_gated=False)
    return replace(layer, norms=layer.norms if has_two else ONE_NORM, qkv_bias=bias, o_bias=bias, mlp_bias=bias)


def _falcon_sizes(config: Config) -> Mapping[str, object]:
    heads = size_of(config, "num_attention_heads")
    if flag_of(config, "new_decoder_architecture"):
        kv_heads = config.get("num_kv_heads") or heads
    else:
        kv_heads = 1 if flag_of(config, "multi_query") else heads
    wide = config.get("ffn_hidden_size") or 4 * size_of(config, "hidden_size")
    return even_heads(config) | {"num_key_value_heads": kv_heads, "intermediate_size": wide}


ROWS: Mapping[str, Family] = {
    "cohere": Family(
        "CohereForCausalLM",
        frozenset(("attention_bias", "logit_scale", "use_qk_norm")),
        _cohere,
        bos=5,
        eos=255001,
        rope_theta=5e5,
        norm_eps=1e-5,
        edges=_cohere_edges,
        names=EPS,
        defaults={"tie_word_embeddings": True, "logit_scale": 0.0625},
    ),
    "cohere2": Family(
        "Cohere2ForCausalLM",
        frozenset(("attention_bias", "logit_scale", "sliding_window", "sliding_window_pattern")),
        _cohere,
        "typed",
        bos=5,
        eos=255001,
        norm_eps=1e-5,
        edges=_cohere_edges,
        names=EPS,
        defaults={"tie_word_embeddings": True, "logit_scale": 0.0625},
        derive=even_heads,
        every_full=4,
        vary=_positions_in_windows,
    ),
    "stablelm": Family(
        "StableLmForCausalLM",
        frozenset(("qk_layernorm", "use_parallel_residual", "use_qkv_bias")),
        _stablelm,
        stored=STABLELM,
        bos=0,
        eos=0,
        norm_eps=1e-5,
        names=EPS,
        derive=even_heads,
        rotary_share=0.25,
    ),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM",
        frozenset(("attention_bias", "use_parallel_residual")),
        _neox,
        stored=NEOX,
        bos=0,
        eos=2,
        norm_eps=1e-5,
        names=EPS | {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
        defaults={"attention_bias": True, "use_parallel_residual": True},
        derive=plain_heads,
        rotary_share=0.25,
    ),
    "phi": Family(
        "PhiForCausalLM",
        frozenset(("qk_layernorm",)),
        _phi,
        stored=PHI,
        bos=1,
        eos=2,
        norm_eps=1e-5,
        edges=_phi_edges,
        names=EPS,
        rotary_share=0.5,
    ),
    "falcon": Family(
        "FalconForCausalLM",
        frozenset(
            ("bias", "ffn_hidden_size", "multi_query", "new_decoder_architecture", "num_kv_heads",
             "num_ln_in_parallel_attn", "parallel_attn")
        ),
        _falcon,
        stored=FALCON,
        bos=11,
        eos=11,
        norm_eps=1e-5,
        names={"rms_norm_eps": "layer_norm_epsilon", "hidden_act": "activation"},
        defaults={"tie_word_embeddings": True, "multi_query": True, "parallel_attn": True},
        derive=_falcon_sizes,
        refused={"alibi": (None, False)},
    ),
}  # fmt: skip
