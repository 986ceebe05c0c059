"""Writes model directories as GGUF files with the gguf package: its names, its types, its quantisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors.torch
from safetensors.numpy import save_file

NAMES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
}
IN_PAIRS = ("llama", "mistral", "mixtral")
EXPERTS = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
ENDS = (".weight", ".bias")
TYPES = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING", list: "ARRAY"}
Tensors = dict[str, np.ndarray]


def make_gguf(source: Path, target: Path, kind: str = "F32", plain: Path | None = None, **metadata: Any) -> Path:
    """Write the model of a directory, its matrices in a type ("Q8_0"), norms and biases in float32; `metadata` replaces
    values or, as None, leaves them out. `plain` gets the directory whose floats are those that the file stands for."""
    config = json.loads((source / "config.json").read_text())
    original = load_file(source / "model.safetensors")
    stored = {
        name: as_type(tensor, kind) if tensor.ndim > 1 else (tensor, "F32")
        for name, tensor in of_llama_cpp(original, config).items()
    }
    name = NAMES[config["model_type"]]
    write_gguf(target, name, model_values(config, name) | tokenizer_values(source) | metadata, stored)
    if plain is not None:
        write_plain(source, plain, {n: decode(*data) for n, data in stored.items()}, original, config)
    return target


def load_file(path: Path) -> Tensors:
    """The tensors of a file in float32."""
    return {name: tensor.float().numpy() for name, tensor in safetensors.torch.load_file(path).items()}


def write_gguf(target: Path, name: str, values: dict[str, Any], tensors: dict[str, tuple[np.ndarray, str]]) -> Path:
    """Write metadata, None left out, and tensors with their types."""
    writer = gguf.GGUFWriter(str(target), name)
    for key, value in values.items():
        if value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType[TYPES[type(value)]])
    for tensor, (data, kind) in tensors.items():
        writer.add_tensor(tensor, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def model_values(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The metadata of a shape, as llama.cpp's converter writes them."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    values = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
        "rope.freq_base": float((config.get("rope_parameters") or config).get("rope_theta", config.get("rope_theta"))),
        "vocab_size": config["vocab_size"],
    }
    if "num_experts_per_tok" in config:
        values["expert_count"] = config.get("num_experts") or config["num_local_experts"]
        values["expert_used_count"] = config["num_experts_per_tok"]
    if "moe_intermediate_size" in config:
        values["expert_feed_forward_length"] = config["moe_intermediate_size"]
    return {f"{name}.{key}": value for key, value in values.items()}


def tokenizer_values(source: Path) -> dict[str, Any]:
    """The metadata of a byte-level tokenizer cut as GPT-2 cuts."""
    if not (source / "tokenizer.json").exists():
        return {}
    made = json.loads((source / "tokenizer.json").read_text())
    config = json.loads((source / "tokenizer_config.json").read_text())
    special = {token["id"]: token["special"] for token in made["added_tokens"]}
    tokens = {i: token for token, i in made["model"]["vocab"].items()}
    tokens |= {token["id"]: token["content"] for token in made["added_tokens"]}
    width = json.loads((source / "config.json").read_text())["vocab_size"]
    kinds = [(3 if special[i] else 4) if i in special else 1 if i in tokens else 5 for i in range(width)]
    ids = {token: i for i, token in tokens.items()}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [tokens.get(i, f"[PAD{i}]") for i in range(width)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in made["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": ids.get(config.get("eos_token")),
        "tokenizer.chat_template": config.get("chat_template"),
    }


def of_llama_cpp(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """Tensors under llama.cpp's names, rotary pairs side by side where it has them so, experts of a layer as one."""
    known, found, experts = names_of(config), {}, {}
    for stored, tensor in tensors.items():
        if ".experts." in stored:
            layer, number, part = expert_of(stored)
            experts.setdefault((layer, part), {})[number] = tensor
        else:
            found[known.get_name(stored, ENDS)] = paired(stored, tensor, config)
    stacks = {
        f"blk.{layer}.ffn_{part}_exps.weight": np.stack([each[i] for i in range(len(each))])
        for (layer, part), each in experts.items()
    }
    return found | stacks


def paired(name: str, tensor: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Queries and keys as llama.cpp's converter turns them for models that it rotates in adjacent pairs."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(name.split(".")[-2])
    if config["model_type"] not in IN_PAIRS or heads is None:
        return tensor
    return tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def as_type(tensor: np.ndarray, kind: str) -> tuple[np.ndarray, str]:
    """A matrix in a type, in float32 where its rows do not divide into blocks; K types, which the package cannot make,
    with random bits under scales that keep the values near those of the matrix."""
    type_ = gguf.GGMLQuantizationType[kind]
    block, n_bytes = gguf.GGML_QUANT_SIZES[type_]
    if tensor.shape[-1] % block:
        return tensor, "F32"
    try:
        return gguf.quants.quantize(tensor, type_), kind
    except NotImplementedError:
        return random_blocks(tensor, kind, block, n_bytes), kind


SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,)}
"""Where in a block of each type the scales of 16 bits stand."""


def random_blocks(tensor: np.ndarray, kind: str, block: int, n_bytes: int) -> np.ndarray:
    rows = tensor.reshape(-1, tensor.shape[-1])
    count = rows.size // block
    rng = np.random.default_rng(count)
    raw = rng.integers(0, 256, (count, n_bytes), dtype=np.uint8)
    for at in SCALES[kind]:
        raw[:, at : at + 2] = np.full((count, 1), 1e-3, np.float16).view(np.uint8)
    values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    for at in SCALES[kind]:
        raw[:, at : at + 2] = np.full((count, 1), 1e-3 * rows.std() / values.std(), np.float16).view(np.uint8)
    return raw.reshape(*tensor.shape[:-1], -1)


def decode(data: np.ndarray, kind: str) -> np.ndarray:
    return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]).astype(np.float32)


def write_plain(source: Path, plain: Path, decoded: Tensors, original: Tensors, config: dict[str, Any]) -> None:
    """The directory of a model whose floats are what a file's tensors stand for: what was moved for llama.cpp is put
    back by looking for where it came from."""
    plain.mkdir(exist_ok=True)
    for path in source.glob("*.json"):
        (plain / path.name).write_bytes(path.read_bytes())
    numbered = {name: np.arange(t.size, dtype=np.int64).reshape(t.shape) for name, t in original.items()}
    known, tensors = names_of(config), {}
    for name, tensor in original.items():
        if ".experts." in name:
            layer, number, part = expert_of(name)
            tensors[name] = decoded[f"blk.{layer}.ffn_{part}_exps.weight"][number].copy()
            continue
        whole = np.empty(tensor.size, np.float32)
        whole[paired(name, numbered[name], config).ravel()] = decoded[known.get_name(name, ENDS)].ravel()
        tensors[name] = whole.reshape(tensor.shape)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})


def names_of(config: dict[str, Any]) -> gguf.TensorNameMap:
    """The package's names for the tensors of a model."""
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(numbers[NAMES[config["model_type"]]], config["num_hidden_layers"])


def expert_of(name: str) -> tuple[str, int, str]:
    """Layer, number and part of a tensor of an expert."""
    block, _, rest = name.partition(".experts.")
    number, part, _ = rest.split(".")
    return block.split(".")[2], int(number), EXPERTS[part]
