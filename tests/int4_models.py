"""Writes tiny models with 4-bit weights, packed number by number from the definition of each format, and beside them
the same models in float32."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.tiny_models import make_model

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
LAYERS = "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A way of storing: `group` -1 is all inputs; `plain`: parts of the names of layers that stay as they are."""

    packing: str
    group: int
    symmetric: bool = False
    act_order: bool = False
    plain: tuple[str, ...] = ()
    family: str = "llama"
    overrides: dict[str, Any] = field(default_factory=dict)


def make_pair(folder: Path, kind: Kind, seed: int = 3) -> tuple[Path, Path]:
    """The directories of a model in 4 bits, and of the float32 model that it stands for."""
    wide = 172 if kind.packing == "compressed-tensors" else 176
    sizes = {"intermediate_size": wide, "initializer_range": 0.02} | kind.overrides
    packed, plain = (make_model(folder / n, kind.family, seed, **sizes) for n in ("int4", "floats"))
    tensors, rng = load_file(plain / "model.safetensors"), np.random.default_rng(seed)
    stored, floats = {}, {}
    for name, tensor in tensors.items():
        layer = name.removesuffix(".weight")
        if layer.endswith(LAYERS) and name.endswith(".weight") and not any(part in layer for part in kind.plain):
            new, floats[name] = pack_layer(kind, layer, tensor, rng)
            stored |= new
        else:
            stored[name] = floats[name] = tensor
    save_file(stored, packed / "model.safetensors", metadata={"format": "pt"})
    save_file(floats, plain / "model.safetensors", metadata={"format": "pt"})
    set_config(packed, statement(kind))
    return packed, plain


def set_config(directory: Path, stated: dict[str, Any]) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": stated}))


def statement(kind: Kind) -> dict[str, Any]:
    """The `quantization_config` that says so, with the keys that writers leave in it."""
    if kind.packing == "awq":
        return {
            "quant_method": "awq", "bits": 4, "group_size": kind.group, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": list(kind.plain) or None,
        }  # fmt: skip
    if kind.packing == "compressed-tensors":
        size = {"strategy": "channel", "group_size": None} if kind.group < 0 else {"strategy": "group"}
        weights = {
            "num_bits": 4, "type": "int", "symmetric": kind.symmetric, "group_size": kind.group, "dynamic": False,
            "actorder": None, "block_structure": None, "observer": "minmax", "observer_kwargs": {},
        } | size  # fmt: skip
        return {
            "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
            "ignore": ["lm_head", *(f"re:.*{part}.*" for part in kind.plain)], "kv_cache_scheme": None,
            "version": "0.9.0", "sparsity_config": {},
        }  # fmt: skip
    stated = {
        "quant_method": "gptq", "bits": 4, "group_size": kind.group, "sym": kind.symmetric, "desc_act": kind.act_order,
        "checkpoint_format": kind.packing, "damp_percent": 0.01, "true_sequential": True, "lm_head": False,
        "meta": {"quantizer": ["someone:1.0"]}, "static_groups": False, "dataset": None,
    }  # fmt: skip
    if kind.plain:
        inside = [f"{'mlp' if n in LAYERS[4:] else 'self_attn'}.{n}" for n in LAYERS if n not in kind.plain]
        stated["modules_in_block_to_quantize"] = [[name] for name in inside]
    return stated


def pack_layer(kind: Kind, layer: str, weight: np.ndarray, rng: np.random.Generator) -> tuple[Tensors, np.ndarray]:
    """The tensors that store a weight (`[outputs, inputs]`), and the float32 numbers that they mean."""
    outputs, inputs = weight.shape
    group = inputs if kind.group < 0 else kind.group
    n_groups = -(-inputs // group)
    index = [i // group for i in range(inputs)]
    if kind.act_order:
        rng.shuffle(index)
    scales = (0.1 + 0.1 * rng.random((outputs, n_groups))).astype(np.float16) * np.float16(3 * inputs**-0.5)
    least = 1 if kind.packing == "gptq" else 0  # version 1 has no way to write 0
    zeros = np.full((outputs, n_groups), 8) if kind.symmetric else rng.integers(least, 16, (outputs, n_groups))
    values, means = np.zeros((outputs, inputs), np.int64), np.zeros((outputs, inputs), np.float32)
    for o in range(outputs):
        for i in range(inputs):
            scale, zero = float(scales[o, index[i]]), int(zeros[o, index[i]])
            values[o, i] = min(15, max(0, round(float(weight[o, i]) / scale) + zero))
            means[o, i] = (int(values[o, i]) - zero) * scale
    writers = {"awq": write_awq, "compressed-tensors": write_compressed}
    found = writers.get(kind.packing, write_gptq)(kind, values, zeros, scales, index)
    return {f"{layer}.{name}": tensor for name, tensor in found.items()}, means


def word(nibbles: list[int]) -> int:
    """Eight numbers of 4 bits in an int32, the first in the lowest bits; missing ones are 0."""
    total = sum(nibble << (4 * i) for i, nibble in enumerate(nibbles))
    return total - 2**32 if total >= 2**31 else total


def write_gptq(kind: Kind, values: np.ndarray, zeros: np.ndarray, scales: np.ndarray, index: list[int]) -> Tensors:
    (outputs, inputs), n_groups = values.shape, zeros.shape[1]
    less = 1 if kind.packing == "gptq" else 0
    qweight = [
        [word([int(values[o, 8 * r + k]) for k in range(8)]) for o in range(outputs)] for r in range(inputs // 8)
    ]
    qzeros = [
        [word([int(zeros[8 * c + k, g]) - less for k in range(8)]) for c in range(outputs // 8)]
        for g in range(n_groups)
    ]
    return {
        "qweight": np.array(qweight, np.int32), "qzeros": np.array(qzeros, np.int32),
        "scales": np.ascontiguousarray(scales.T), "g_idx": np.array(index, np.int32),
    }  # fmt: skip


def write_awq(kind: Kind, values: np.ndarray, zeros: np.ndarray, scales: np.ndarray, index: list[int]) -> Tensors:
    (outputs, inputs), n_groups = values.shape, zeros.shape[1]
    eights = range(outputs // 8)
    qweight = [[word([int(values[8 * c + k, i]) for k in AWQ_ORDER]) for c in eights] for i in range(inputs)]
    qzeros = [[word([int(zeros[8 * c + k, g]) for k in AWQ_ORDER]) for c in eights] for g in range(n_groups)]
    return {
        "qweight": np.array(qweight, np.int32), "qzeros": np.array(qzeros, np.int32),
        "scales": np.ascontiguousarray(scales.T),
    }  # fmt: skip


def write_compressed(
    kind: Kind, values: np.ndarray, zeros: np.ndarray, scales: np.ndarray, index: list[int]
) -> Tensors:
    (outputs, inputs), n_groups = values.shape, zeros.shape[1]
    packed = [[word([int(v) for v in values[o, at : at + 8]]) for at in range(0, inputs, 8)] for o in range(outputs)]
    found = {
        "weight_packed": np.array(packed, np.int32), "weight_scale": scales,
        "weight_shape": np.array([outputs, inputs], np.int64),
    }  # fmt: skip
    if not kind.symmetric:
        points = [
            [word([int(z) for z in zeros[at : at + 8, g]]) for g in range(n_groups)] for at in range(0, outputs, 8)
        ]
        found["weight_zero_point"] = np.array(points, np.int32)
    return found
