"""GGUF files of further architectures, written with the gguf package's names, against the models they were made of.

What llama.cpp's converter does beyond renaming is written down here: norms of Gemma with one added, rotary pairs side
by side. For Gemma 2 and 3, transformers' own reader of GGUF files is a second opinion.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.gguf_models import ENDS, as_type, load_file, write_gguf
from tests.models.dense import dense_logits
from tests.models.test_decoder import random_prompts, reference_logits
from tests.parameters import few_of
from tests.tiny_types import save_tiny, tiny_config, tiny_module
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.hosted.classes import class_of
from umbel.models.weights import StoredWeights

NAMES = {
    "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "olmo2": "olmo2", "phi3": "phi3", "glm4": "glm4",
    "granite": "granite", "cohere": "command-r", "smollm3": "smollm3", "seed_oss": "seed_oss",
}  # fmt: skip
KEYS = {
    "num_hidden_layers": "block_count", "max_position_embeddings": "context_length", "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon", "head_dim": "attention.key_length",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    "attention_multiplier": "attention.scale", "embedding_multiplier": "embedding_scale",
    "logits_scaling": "logit_scale", "logit_scale": "logit_scale", "residual_multiplier": "residual_scale",
}  # fmt: skip
ADDS_ONE, IN_PAIRS = ("gemma", "gemma2", "gemma3_text"), ("granite", "smollm3")
WINDOWS = ("gemma2", "gemma3_text", "phi3")
EVERY_SIXTH = [*["sliding_attention"] * 5, "full_attention", "sliding_attention"]
MORE: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, "layer_types": EVERY_SIXTH, "num_hidden_layers": 7},
    "glm4": {"attention_bias": True},
    "granite": {
        "attention_multiplier": 0.3, "embedding_multiplier": 1.5, "logits_scaling": 2.0, "residual_multiplier": 0.7
    },
    "phi3": {"pad_token_id": 0},
}  # fmt: skip


def made(directory: Path, model_type: str, kind: str = "F32", **more: Any) -> Path:
    """A file of a tiny model that transformers has saved in `directory`."""
    save_tiny(directory, tiny_module(class_of(model_type), tiny_config(model_type, **MORE.get(model_type, {}), **more)))
    stated = json.loads((directory / "config.json").read_text())
    arch = NAMES[model_type]
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, stated["num_hidden_layers"])
    tensors = {
        names.get_name(name, ENDS): changed(name, tensor, model_type, stated)
        for name, tensor in load_file(directory / "model.safetensors").items()
    }
    stored = {name: as_type(t, kind) if t.ndim > 1 else (t, "F32") for name, t in tensors.items()}
    return write_gguf(directory / "m.gguf", arch, {f"{arch}.{k}": v for k, v in values(stated).items()}, stored)


def changed(name: str, tensor: np.ndarray, model_type: str, config: dict[str, Any]) -> np.ndarray:
    """A tensor as llama.cpp's converter stores it."""
    if model_type in ADDS_ONE and name.endswith("norm.weight"):
        return tensor + 1
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(name.split(".")[-2])
    if model_type not in IN_PAIRS or heads is None:
        return tensor
    return tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def values(config: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a config.json, without the architecture's name."""
    found = {key: config[own] for own, key in KEYS.items() if config.get(own) is not None}
    rope = config.get("rope_parameters") or config
    rope = rope.get("full_attention", rope)
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    found |= {"rope.freq_base": float(rope["rope_theta"]), "vocab_size": config["vocab_size"]}
    found |= {"rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1.0))}
    if config["model_type"] in WINDOWS:
        found["attention.sliding_window"] = config["sliding_window"] or 0
    return {key: float(v) if "scale" in key or "softcap" in key else v for key, v in found.items()}


@pytest.mark.parametrize("model_type", few_of(tuple(NAMES)[1:5], (*tuple(NAMES)[:1], *tuple(NAMES)[5:])))
def test_logits_equal_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    path, prompts = made(tmp_path, model_type), random_prompts((1, 17, 60))
    spec = read_spec(path)
    decoder = Decoder(spec, StoredWeights(path, spec, torch.float32))
    for prompt, expected in zip(prompts, reference_logits(tmp_path, prompts), strict=True):
        assert (dense_logits(decoder, prompt) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("model_type", NAMES)
def test_the_spec_is_that_of_the_directory(model_type: str, tmp_path: Path) -> None:
    made_of, own = read_spec(made(tmp_path, model_type)), read_spec(tmp_path)
    other = {"family", "norm_eps", "bos_token_id", "eos_token_ids", "notes", "layers", "edges", "rope_theta"}
    assert made_of.family == own.family
    for name in set(type(own).__dataclass_fields__) - other:
        assert getattr(made_of, name) == getattr(own, name), name
    for ours, theirs in zip(made_of.layers, own.layers, strict=True):  # numbers of a file have 32 bits
        assert (ours.window, ours.norms, ours.rope) == (theirs.window, theirs.norms, theirs.rope)
        assert ours.scale == (theirs.scale if theirs.scale is None else pytest.approx(theirs.scale))


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text"])
@pytest.mark.nightly
def test_transformers_reads_the_same_model(model_type: str, tmp_path: Path) -> None:
    """Its own reader, which takes the one off Gemma's norms in its own way; heads are of the size that it scales by."""
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate only")
    path, (prompt,) = made(tmp_path, model_type, "Q8_0", head_dim=256), random_prompts((60,))
    (tmp_path / "alone").mkdir()
    path = path.rename(tmp_path / "alone" / "m.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    spec = read_spec(path)
    with torch.inference_mode():
        expected = theirs(torch.tensor([prompt])).logits[0]
    decoder = Decoder(spec, StoredWeights(path, spec, torch.float32))
    assert (dense_logits(decoder, prompt) - expected).abs().max() <= 1e-4


def test_a_gemma_with_27_billion_parameters_scales_queries_by_its_width() -> None:
    from umbel.models.sources.gguf_architectures import ARCHITECTURES

    wide = {"num_hidden_layers": 46, "hidden_size": 4608, "num_attention_heads": 32, "head_dim": 128}
    assert ARCHITECTURES["gemma2"].derive(wide) == {"query_pre_attn_scalar": 144}
    assert ARCHITECTURES["gemma2"].derive(wide | {"num_hidden_layers": 42}) == {"query_pre_attn_scalar": 128}
    wide = {"num_hidden_layers": 62, "hidden_size": 5376, "num_attention_heads": 32, "head_dim": 128}
    assert ARCHITECTURES["gemma3"].derive(wide) == {"query_pre_attn_scalar": 168}
