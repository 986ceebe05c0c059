"""Reads what config.json says of 4-bit weights, its `quantization_config`, by allow-list.

Three ways of storing them are known: GPTQ (2210.17323) as AutoGPTQ and GPTQModel write it, AWQ (2306.00978) as AutoAWQ
does ("gemm"), and compressed-tensors' "pack-quantized". A key that is not known here may change what the weights mean,
so it is refused unless it says nothing (null, false, empty). Nothing here needs torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from umbel.errors import ModelError
from umbel.ir.int4_format import Int4Format
from umbel.models.config_file import Config, flag_of, is_int, shorten

KEY = "quantization_config"
MXFP4 = "mxfp4"
LARGEST = 2**20  # inputs of a group
PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The layers of a checkpoint that make up each of our products."""

HISTORY = frozenset((
    "act_group_aware", "backend", "batch_size", "block_name_to_quantize", "cache_block_outputs",
    "damp_auto_increment", "damp_percent", "dataset", "disable_exllama", "do_fuse", "exllama_config",
    "fuse_max_seq_len", "global_compression_ratio", "max_input_length", "meta", "model_file_base_name",
    "model_name_or_path", "model_seqlen", "module_name_preceding_first_block", "modules_to_fuse", "mse",
    "pad_token_id", "quant_method", "quantization_status", "static_groups", "tokenizer", "true_sequential",
    "use_cuda_fp16", "use_exllama", "version",
))  # fmt: skip
"""Keys that say how weights were made or which kernels others should use, not what the weights mean."""
PATTERN = re.compile(r"\^?(?:[\w-]|\.\*|\\?\.)*\$?")
STARS = 3  # `.*` in a pattern: with more, a hostile one could keep us for long


def int4_format(config: Config, n_layers: int, *, tied: bool) -> Int4Format | None:
    """How the checkpoint's layers are packed, None where they are plain floats. Raises ModelError for any form of
    quantisation that cannot be read; `tied`: the model has no head of its own."""
    stated = config.get(KEY)
    if not stated:
        return None
    if not isinstance(stated, dict):
        raise ModelError(f"{KEY}={shorten(stated)}: must be an object")
    readers: dict[str, Callable[[Config, int, bool], Int4Format]] = {
        "gptq": _gptq, "awq": _awq, "compressed-tensors": _compressed
    }  # fmt: skip
    method = stated.get("quant_method")
    if method == MXFP4:
        _refuse_unknown(stated, "dequantize modules_to_not_convert")
        return None
    if not isinstance(method, str) or method not in readers:
        raise ModelError(
            f"{KEY}: quant_method={shorten(method)}: must be {MXFP4}, or one of {', '.join(readers)} in 4 bits; "
            "else use the original model"
        )
    try:
        return readers[method](stated, n_layers, tied)
    except ModelError as error:
        raise ModelError(f"{KEY} ({method}): {error}") from None


def mxfp4_notes(config: Config) -> list[str]:
    """What is worth knowing of a checkpoint whose experts are in MXFP4."""
    stated = config.get(KEY)
    if not isinstance(stated, dict) or stated.get("quant_method") != MXFP4:
        return []
    return ["config.json: experts are stored in MXFP4, 4.25 bits a weight, and kept as the floats that they stand for"]


def _gptq(stated: Config, n_layers: int, tied: bool) -> Int4Format:
    _refuse_unknown(
        stated, "bits checkpoint_format desc_act format group_size lm_head modules_in_block_to_quantize pack_dtype sym"
    )
    _must_be(stated, "bits", 4)
    _must_be(stated, "lm_head", False, missing=False)
    _must_be(stated, "pack_dtype", "int32", missing="int32")
    packing = stated.get("checkpoint_format") or stated.get("format") or "gptq"
    if packing not in ("gptq", "gptq_v2"):
        raise ModelError(f"checkpoint_format={shorten(packing)}: must be gptq or gptq_v2")
    blocks = stated.get("modules_in_block_to_quantize")
    if blocks is not None and not _is_names(blocks, depth=2):
        raise ModelError(f"modules_in_block_to_quantize={shorten(blocks)}: must be a list of lists of names")
    named = None if blocks is None else {name for block in blocks for name in block}
    plain = _plain(n_layers, lambda name: named is not None and name.split(".", 3)[3] not in named)
    symmetric = flag_of(stated, "sym")
    return Int4Format(str(packing), _group(stated), True, flag_of(stated, "desc_act"), plain, symmetric)


def _awq(stated: Config, n_layers: int, tied: bool) -> Int4Format:
    _refuse_unknown(stated, "bits desc_act format group_size modules_to_not_convert sym zero_point")
    _must_be(stated, "bits", 4)
    _must_be(stated, "zero_point", True, missing=True)
    _must_be(stated, "desc_act", False, missing=False)
    layout = stated.get("version") or stated.get("format") or "gemm"
    if not isinstance(layout, str) or layout.lower() != "gemm":
        raise ModelError(f"version={shorten(layout)}: only gemm can be read")
    left = stated.get("modules_to_not_convert") or []
    if not _is_names(left):
        raise ModelError(f"modules_to_not_convert={shorten(left)}: must be a list of names")
    plain = _plain(n_layers, lambda name: any(n in name for n in left))
    return Int4Format("awq", _group(stated), True, False, plain, flag_of(stated, "sym"))


def _compressed(stated: Config, n_layers: int, tied: bool) -> Int4Format:
    _refuse_unknown(stated, "config_groups format ignore kv_cache_scheme")
    _must_be(stated, "format", "pack-quantized")
    _must_be(stated, "kv_cache_scheme", None)
    groups = stated.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1 or not isinstance(next(iter(groups.values())), dict):
        raise ModelError(f"config_groups={shorten(groups)}: must be one group, of all layers")
    (group,) = groups.values()
    _refuse_unknown(group, "format input_activations output_activations targets weights")
    _must_be(group, "targets", ["Linear"])
    _must_be(group, "input_activations", None)
    _must_be(group, "output_activations", None)
    _must_be(group, "format", "pack-quantized", missing="pack-quantized")
    left = stated.get("ignore") or []
    if not _is_names(left):
        raise ModelError(f"ignore={shorten(left)}: must be a list of names")
    if not tied and not _is_ignored("lm_head", left):
        raise ModelError(f"ignore={shorten(left)}: lm_head is quantised, which cannot be read")
    size, zeros = _weights(group.get("weights"))
    return Int4Format("compressed-tensors", size, zeros, False, _plain(n_layers, lambda name: _is_ignored(name, left)))


def _weights(stated: Any) -> tuple[int | None, bool]:
    """The group size and whether zero points are stored, of compressed-tensors' arguments for weights."""
    if not isinstance(stated, dict):
        raise ModelError(f"weights={shorten(stated)}: must be an object")
    known = "actorder dynamic group_size num_bits observer observer_kwargs scale_dtype strategy symmetric type zp_dtype"
    _refuse_unknown(stated, known)
    _must_be(stated, "num_bits", 4)
    _must_be(stated, "type", "int", missing="int")
    _must_be(stated, "dynamic", False, missing=False)
    if stated.get("actorder") not in (None, False, "weight", "static"):
        raise ModelError(f"actorder={shorten(stated['actorder'])}: must be null, weight or static")
    size, strategy = _group(stated, missing=-1), stated.get("strategy")
    if strategy is None and stated.get("group_size") is not None:
        strategy = "channel" if size is None else "group"
    if strategy != ("channel" if size is None else "group"):
        given = shorten(stated.get("group_size"))
        raise ModelError(f"strategy={shorten(strategy)} with group_size={given}: must be group with a size, or channel")
    return size, stated.get("symmetric") is not None and not flag_of(stated, "symmetric")


def _plain(n_layers: int, is_plain: Callable[[str], bool]) -> tuple[str, ...]:
    """Our names of the products whose layers are floats; raises ModelError where only some of a product's are."""
    found = []
    for layer in range(n_layers):
        for product, parts in PRODUCTS.items():
            plain = [part for part in parts if is_plain(f"model.layers.{layer}.{part}")]
            if plain and len(plain) < len(parts):
                raise ModelError(f"layer {layer}: of {', '.join(parts)} only some are int4 ({plain[0]} is not)")
            if plain:
                found.append(f"layers.{layer}.{product}")
    return tuple(found)


def _is_ignored(name: str, left: list[str]) -> bool:
    return any(_matches(name, entry) for entry in left)


def _matches(name: str, entry: str) -> bool:
    """Whether an entry of compressed-tensors' `ignore` names a layer: in full, or as a pattern of its beginning."""
    if not entry.startswith("re:"):
        return entry == name
    pattern = entry.removeprefix("re:")
    if not PATTERN.fullmatch(pattern) or pattern.count(".*") > STARS:
        raise ModelError(
            f"ignore: {shorten(entry)}: a pattern may have names, dots, ^, $ and up to {STARS} times .*: list the names"
        )
    return re.match(pattern, name) is not None


def _group(stated: Config, missing: int = 128) -> int | None:
    """Inputs that share a scale, None for all (stored as -1)."""
    size = stated.get("group_size")
    size = missing if size is None else size
    if not is_int(size) or size == 0 or not -1 <= size <= LARGEST or (size > 0 and size % 2):
        raise ModelError(f"group_size={shorten(size)}: must be -1 or an even number of up to {LARGEST:,}")
    return None if size == -1 else size


def _must_be(stated: Config, key: str, only: object, missing: object = None) -> None:
    value = stated.get(key)
    value = missing if value is None else value
    if type(value) is not type(only) or value != only:
        raise ModelError(f"{key}={shorten(value)}: only {json.dumps(only)} is supported")


def _refuse_unknown(stated: Config, known: str) -> None:
    for key, value in stated.items():
        if value not in (None, False, {}, [], "") and key not in HISTORY and key not in known.split():
            raise ModelError(
                f"{shorten(key)}={shorten(value)}: this key is not known, and may change what weights mean"
            )


def _is_names(value: object, depth: int = 1) -> bool:
    """Whether a JSON value is a list of strings (or a list of such lists, at depth 2)."""
    if not isinstance(value, list):
        return False
    return all(isinstance(each, str) if depth == 1 else _is_names(each) for each in value)
