"""Writes a Hugging Face directory of bfloat16 weights as a GGUF file that llama.cpp reads, without a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def convert(source: Path, target: Path) -> None:
    """Write `source` as `target`; Qwen3 and Llama. Raises ValueError for others, and for weights of other dtypes."""
    config = json.loads((source / "config.json").read_text())
    kind = config["model_type"]
    if kind not in ("qwen3", "llama"):
        raise ValueError(f"model_type {kind!r}: only qwen3 and llama are converted; give a GGUF file with --peer-model")
    writer = gguf.GGUFWriter(str(target), kind)
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_name(source.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(head)
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for path in sorted(source.glob("*.safetensors")):
        _add_tensors(writer, path, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensors(writer: Any, path: Path, config: dict[str, Any]) -> None:
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int(data[:8].view(np.uint64)[0])
    header = json.loads(bytes(data[8:start]))
    tied = config.get("tie_word_embeddings", False)
    for name, entry in header.items():
        if name == "__metadata__" or (tied and name.startswith("lm_head")):
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {entry['dtype']}; only bfloat16 weights are converted")
        low, high = entry["data_offsets"]
        bits = data[start + low : start + high].view(np.uint16).reshape(entry["shape"])
        if bits.ndim == 1:  # norms are kept in float32
            writer.add_tensor(_name(name), (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            bits = _pairs(bits, name, config)
            bfloat16 = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(_name(name), np.ascontiguousarray(bits).view(np.uint8), raw_dtype=bfloat16)


def _name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{end}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}.{end}"


def _pairs(bits: np.ndarray, name: str, config: dict[str, Any]) -> np.ndarray:
    """Llama's queries and keys stand in interleaved pairs for rotary embeddings in llama.cpp, in halves elsewhere."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    count = heads.get(name.split(".")[-2])
    if config["model_type"] != "llama" or count is None:
        return bits
    split = bits.reshape(count, 2, bits.shape[0] // count // 2, bits.shape[1])
    return split.swapaxes(1, 2).reshape(bits.shape)
