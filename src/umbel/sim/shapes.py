"""Shapes of well-known models by name, so that a simulation needs no files (figures from their config.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from umbel.ir.experts import Experts, Router
from umbel.ir.layer import HeadNorm, Layer
from umbel.ir.spec import ModelSpec


def _llama(vocab: int, hidden: int, layers: int, heads: tuple[int, int, int], ffn: int, *, tied: bool) -> ModelSpec:
    n_heads, n_kv_heads, head_dim = heads
    return ModelSpec(
        family="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        n_layers=layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        intermediate_size=ffn,
        max_positions=131072,
        norm_eps=1e-5,
        rope_theta=5e5,
        tied_embeddings=tied,
        dtype="bfloat16",
    )


def _qwen2(vocab: int, hidden: int, layers: int, heads: tuple[int, int, int], ffn: int, *, tied: bool) -> ModelSpec:
    n_heads, n_kv_heads, head_dim = heads
    return ModelSpec(
        family="qwen2",
        vocab_size=vocab,
        hidden_size=hidden,
        n_layers=layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        intermediate_size=ffn,
        max_positions=32768,
        norm_eps=1e-6,
        rope_theta=1e6,
        layers=(Layer(qkv_bias=True),),
        tied_embeddings=tied,
        dtype="bfloat16",
    )


def _qwen3(hidden: int, layers: int, heads: int, ffn: int, *, tied: bool) -> ModelSpec:
    return ModelSpec(
        family="qwen3",
        vocab_size=151936,
        hidden_size=hidden,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=8,
        head_dim=128,
        intermediate_size=ffn,
        max_positions=40960,
        norm_eps=1e-6,
        rope_theta=1e6,
        layers=(Layer(head_norm=HeadNorm()),),
        tied_embeddings=tied,
        dtype="bfloat16",
    )


_QWEN3_30B = replace(
    _qwen3(2048, 48, 32, 6144, tied=False),
    family="qwen3_moe",
    n_kv_heads=4,
    experts=Experts(count=128, per_token=8, width=768, router=Router(normalised=True)),
)
_LLAMA_70B = _llama(128256, 8192, 80, (64, 8, 128), 28672, tied=False)

SHAPES: Mapping[str, ModelSpec] = MappingProxyType(
    {
        "llama-3.1-8b": _llama(128256, 4096, 32, (32, 8, 128), 14336, tied=False),
        "llama-3.1-70b": _LLAMA_70B,
        "llama-3.3-70b": _LLAMA_70B,
        "llama-3.2-1b": _llama(128256, 2048, 16, (32, 8, 64), 8192, tied=True),
        "llama-3.2-3b": _llama(128256, 3072, 28, (24, 8, 128), 8192, tied=True),
        "qwen2.5-0.5b": _qwen2(151936, 896, 24, (14, 2, 64), 4864, tied=True),
        "qwen2.5-7b": _qwen2(152064, 3584, 28, (28, 4, 128), 18944, tied=False),
        "qwen2.5-14b": _qwen2(152064, 5120, 48, (40, 8, 128), 13824, tied=False),
        "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, tied=True),
        "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, tied=True),
        "qwen3-4b": _qwen3(2560, 36, 32, 9728, tied=True),
        "qwen3-8b": _qwen3(4096, 36, 32, 12288, tied=False),
        "qwen3-14b": _qwen3(5120, 40, 40, 17408, tied=False),
        "qwen3-32b": _qwen3(5120, 64, 64, 25600, tied=False),
        "qwen3-30b-a3b": _QWEN3_30B,
    }
)
