"""OLMo 2 (2501.00656) and OLMo 3: norms of what attention and MLP give, and of all query and key heads together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.ir.layer import HeadNorm, Layer, Norm
from umbel.models.config_file import Config, flag_of
from umbel.models.family import Family
from umbel.models.stored import AS_LLAMA

WIDE = Norm(is_wide=True)
STORED = replace(
    AS_LLAMA,
    norms=dict(AS_LLAMA.norms)
    | {"attn_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"},
)


def olmo2(config: Config) -> Layer:
    """Norms behind attention and MLP only."""
    bias = flag_of(config, "attention_bias")
    return Layer(WIDE, ("attn_post_norm", "mlp_post_norm"), HeadNorm(WIDE, "all"), qkv_bias=bias, o_bias=bias)


ROWS: Mapping[str, Family] = {
    "olmo2": Family("Olmo2ForCausalLM", frozenset(("attention_bias",)), olmo2, stored=STORED, eos=50279, norm_eps=1e-5),
    "olmo3": Family(
        "Olmo3ForCausalLM",
        frozenset(("attention_bias", "sliding_window")),
        olmo2,
        "typed",
        stored=STORED,
        eos=50279,
        norm_eps=1e-5,
        rope_theta=5e5,
        every_full=4,
        thetas={"full_attention": ("rope_theta", 5e5), "sliding_attention": (None, 5e5)},
    ),
}
