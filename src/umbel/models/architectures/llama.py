"""Llama and its relatives: RMSNorm before attention and before a gated MLP, rotary positions over whole heads."""

from __future__ import annotations

from collections.abc import Mapping

from umbel.ir.layer import HeadNorm, Layer
from umbel.models.config_file import Config, flag_of
from umbel.models.family import Family

WINDOW = frozenset(("sliding_window",))
ASKED_WINDOW = WINDOW | {"use_sliding_window"}


def _llama(config: Config) -> Layer:
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, mlp_bias=flag_of(config, "mlp_bias"))


def _mistral(config: Config) -> Layer:
    return Layer()


def _qwen2(config: Config) -> Layer:
    return Layer(qkv_bias=True)


def qwen3(config: Config) -> Layer:
    """Qwen3 (2505.09388) has norms of query and key heads."""
    bias = flag_of(config, "attention_bias")
    return Layer(qkv_bias=bias, o_bias=bias, head_norm=HeadNorm())


ROWS: Mapping[str, Family] = {
    "llama": Family("LlamaForCausalLM", frozenset(("attention_bias", "mlp_bias")), _llama, bos=1, eos=2),
    "mistral": Family("MistralForCausalLM", WINDOW, _mistral, "always", bos=1, eos=2),
    "qwen2": Family("Qwen2ForCausalLM", ASKED_WINDOW | {"max_window_layers"}, _qwen2, "asks"),
    "qwen3": Family(
        "Qwen3ForCausalLM", ASKED_WINDOW | {"attention_bias", "max_window_layers"}, qwen3, "asks", head_dim=128
    ),
}
