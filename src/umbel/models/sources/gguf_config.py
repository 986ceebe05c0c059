"""What config.json would say, from the metadata of a GGUF file: its keys are understood, or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from umbel.errors import ModelError
from umbel.models.config_file import is_int, number_of, shorten
from umbel.models.sources.gguf_architectures import ARCHITECTURES, KEYS, Architecture
from umbel.models.sources.gguf_header import GgufHeader

ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
EXACT = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
READ = (*EXACT, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
"""Types of weights that are read."""

EMBEDDING, HEAD, FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
CHECKED = ("attention.value_length", "rope.dimension_count", "vocab_size")
ROPE = {
    "rope.scaling.type": "rope_type",
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
WITHOUT_EFFECT = ("rope.scaling.finetuned",)
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "attention.causal": (True,), "rope.scaling.attn_factor": (1.0,),
    "expert_count": (0,), "expert_used_count": (0,), "use_parallel_residual": (False,)
}  # fmt: skip
"""Keys that are understood in these values only, where a row does not name them."""

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SAMPLING = {
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
}


def architecture_of(header: GgufHeader) -> tuple[str, Architecture]:
    """The name in front of an architecture's keys, and its row. Raises ModelError for others, and for files that are no
    whole model."""
    name, kind = header.metadata.get("general.architecture"), header.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelError(f"general.type={shorten(kind)}: this file is no model")
    if (parts := header.metadata.get("split.count", 0)) not in (0, 1):
        raise ModelError(f"this is a part of {shorten(parts)}: join them with llama.cpp's gguf-split --merge")
    with_experts = f"{name} with experts"
    if with_experts in ARCHITECTURES and header.metadata.get(f"{name}.expert_count"):
        return str(name), ARCHITECTURES[with_experts]
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(row for row in ARCHITECTURES if " " not in row)
        raise ModelError(f"general.architecture={shorten(name)}: must be one of {known}")
    return name, ARCHITECTURES[name]


def config_of(header: GgufHeader, factors: np.ndarray | None) -> dict[str, Any]:
    """The config.json of a file; `factors` are those of its rotary frequencies. Raises ModelError for what is not
    understood."""
    name, row = architecture_of(header)
    stated = {key.removeprefix(f"{name}."): v for key, v in header.metadata.items() if key.startswith(f"{name}.")}
    _refuse_unknown(name, stated, row)
    config = {own: stated[key] for key, own in {**KEYS, **row.keys}.items() if key in stated}
    config |= {"model_type": row.model_type, "architectures": [row.class_name], **row.fixed}
    config |= {key: tensor in header.tensors for key, tensor in row.biases.items()}
    config["vocab_size"] = _vocabulary(header)
    config["tie_word_embeddings"] = HEAD not in header.tensors
    config["dtype"] = _dtype(header)
    config |= _ids(header.metadata)
    _check_head(stated, config)
    config |= row.derive(config)
    scaling = _scaling(stated, config, factors)
    return config | ({"rope_scaling": scaling} if scaling else {})


def generation_of(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """What generation_config.json would say: the settings that a file recommends, None where it has none."""
    found = {own: metadata[key] for key, own in SAMPLING.items() if key in metadata}
    return {"do_sample": True, **found, **_ids(metadata)} if found else None


def format_notes(header: GgufHeader) -> list[str]:
    """Which types of weights are decoded when they are loaded. Raises ModelError for types that are not read."""
    kinds = {tensor.kind for tensor in header.tensors.values()}
    if other := sorted(kinds - set(READ)):
        raise ModelError(f"weights in {', '.join(other)} cannot be read: only {', '.join(READ)}")
    decoded = sorted(kinds - EXACT.keys())
    if not decoded:
        return []
    return [f"weights in {' and '.join(decoded)} are dequantised as they are loaded, and take the memory of plain ones"]


def _refuse_unknown(name: str, stated: Mapping[str, Any], row: Architecture) -> None:
    known = (*KEYS, *row.keys, *CHECKED, *ROPE, *WITHOUT_EFFECT)
    for key, value in stated.items():
        if key not in known and value not in NEUTRAL.get(key, ()):
            raise ModelError(
                f"{name}.{key}={shorten(value)}: this key is not known, and may change what a model computes"
            )


def _vocabulary(header: GgufHeader) -> int:
    embedding = header.tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"there is no {EMBEDDING}: it holds no model")
    return embedding.shape[0]


def _dtype(header: GgufHeader) -> str:
    """The type that most of the weights are in; for those that are decoded, the one that models are mostly made in."""
    kinds: dict[str, int] = {}
    for tensor in header.tensors.values():
        kind = EXACT.get(tensor.kind, "bfloat16")
        kinds[kind] = kinds.get(kind, 0) + math.prod(tensor.shape)
    return max(kinds, key=lambda kind: kinds[kind])


def _ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    stated = [metadata[key] for key in ENDS if key in metadata]
    ends = [end for i, end in enumerate(stated) if end not in stated[:i]]
    return {"eos_token_id": ends, "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id")}


def _check_head(stated: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Fill in the size of a head, and what of it is rotated where that is a part."""
    try:
        size = config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    except (KeyError, TypeError, ZeroDivisionError):
        raise ModelError("embedding_length and attention.head_count must be whole numbers of at least 1") from None
    values, rotated = stated.get("attention.value_length", size), stated.get("rope.dimension_count", size)
    if not is_int(size) or not is_int(rotated) or size < 1:
        raise ModelError(
            f"attention.key_length={shorten(size)} and rope.dimension_count={shorten(rotated)}: must be whole numbers"
        )
    if values != size:
        raise ModelError(f"attention.value_length={shorten(values)}: must be that of keys, {shorten(size)}")
    if rotated != size:
        config["partial_rotary_factor"] = rotated / size


def _scaling(stated: Mapping[str, Any], config: Mapping[str, Any], factors: np.ndarray | None) -> dict[str, Any]:
    """How rotary frequencies are stretched; empty where they are not."""
    scaling = {own: stated[key] for key, own in ROPE.items() if key in stated}
    if scaling.get("rope_type", "none") == "none":
        scaling = {}
    elif "factor" not in scaling:
        raise ModelError(f"rope.scaling.type={shorten(scaling['rope_type'])} without rope.scaling.factor")
    if factors is None:
        return scaling
    return scaling | _llama3(config, factors)


def _llama3(config: Mapping[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """The settings of Llama 3 whose factors of the frequencies a file holds. Raises ModelError for other factors."""
    found = {"rope_type": "llama3", "factor": float(factors.max(initial=1.0)), **LLAMA3}
    size, theta = 2 * len(factors), number_of(config, "rope_theta", 10_000.0, low=1.0, high=1e12)
    lengths = 2 * math.pi * theta ** (np.arange(0, size, 2) / size)
    low, high, context = (
        LLAMA3["low_freq_factor"],
        LLAMA3["high_freq_factor"],
        LLAMA3["original_max_position_embeddings"],
    )
    smooth = np.clip((context / lengths - low) / (high - low), 0.0, 1.0)
    expected = 1.0 / ((1.0 - smooth) / found["factor"] + smooth)
    if size != config["head_dim"] or not np.allclose(factors, expected, rtol=1e-4):
        raise ModelError(f"{FACTORS}: these are not the factors of Llama 3: no other ones are supported")
    return found
