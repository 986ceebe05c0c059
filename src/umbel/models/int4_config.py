"""Reads what config.json says of 4-bit weights, its `quantization_config`, by allow-list.

Three ways of storing them are known: GPTQ (2210.17323) as AutoGPTQ and GPTQModel write it, AWQ (2306.00978) as AutoAWQ
does ("gemm"), and compressed-tensors' "pack-quantized". A key that is not known here may change what the weights mean,
so it is refused unless it says nothing (null, false, empty). Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from umbel.errors import ModelError
from umbel.ir.int4_format import Int4Format
from umbel.models.coded_config import coded_format
from umbel.models.config_file import Config, flag_of, shorten
from umbel.models.quant_keys import KEY, group_size, is_names, must_be, refuse_unknown

MXFP4 = "mxfp4"
PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The layers of a checkpoint that make up each of our products."""

PATTERN = re.compile(r"\^?(?:[\w-]|\.\*|\\?\.)*\$?")
STARS = 3  # `.*` in a pattern: with more, a hostile one could keep us for long


def int4_format(config: Config, n_layers: int, *, tied: bool) -> Int4Format | None:
    """How the checkpoint's layers are packed, None where they are plain floats. Raises ModelError for any form of
    quantisation that cannot be read; `tied`: the model has no head of its own."""
    stated = config.get(KEY)
    if not stated or coded_format(config) is not None:
        return None
    if not isinstance(stated, dict):
        raise ModelError(f"{KEY}={shorten(stated)}: must be an object")
    readers: dict[str, Callable[[Config, int, bool], Int4Format]] = {
        "gptq": _gptq, "awq": _awq, "compressed-tensors": _compressed
    }  # fmt: skip
    method = stated.get("quant_method")
    if method == MXFP4:
        refuse_unknown(stated, "dequantize modules_to_not_convert")
        return None
    if not isinstance(method, str) or method not in readers:
        raise ModelError(
            f"{KEY}: quant_method={shorten(method)}: must be one of {', '.join(readers)}, fp8 or {MXFP4}; else use the "
            "original model"
        )
    try:
        return readers[method](stated, n_layers, tied)
    except ModelError as error:
        raise ModelError(f"{KEY} ({method}): {error}") from None


def mxfp4_notes(config: Config) -> list[str]:
    """The message that experts stored in MXFP4 are dequantised; none for other checkpoints."""
    stated = config.get(KEY)
    if not isinstance(stated, dict) or stated.get("quant_method") != MXFP4:
        return []
    return ["config.json: experts are stored in MXFP4, 4.25 bits a weight, and kept as the floats that they stand for"]


def _gptq(stated: Config, n_layers: int, tied: bool) -> Int4Format:
    refuse_unknown(
        stated, "bits checkpoint_format desc_act format group_size lm_head modules_in_block_to_quantize pack_dtype sym"
    )
    must_be(stated, "bits", 4)
    must_be(stated, "lm_head", False, missing=False)
    must_be(stated, "pack_dtype", "int32", missing="int32")
    packing = stated.get("checkpoint_format") or stated.get("format") or "gptq"
    if packing not in ("gptq", "gptq_v2"):
        raise ModelError(f"checkpoint_format={shorten(packing)}: must be gptq or gptq_v2")
    blocks = stated.get("modules_in_block_to_quantize")
    if blocks is not None and not is_names(blocks, depth=2):
        raise ModelError(f"modules_in_block_to_quantize={shorten(blocks)}: must be a list of lists of names")
    named = None if blocks is None else {name for block in blocks for name in block}
    plain = _plain(n_layers, lambda name: named is not None and name.split(".", 3)[3] not in named)
    symmetric = flag_of(stated, "sym")
    return Int4Format(str(packing), group_size(stated), True, flag_of(stated, "desc_act"), plain, symmetric)


def _awq(stated: Config, n_layers: int, tied: bool) -> Int4Format:
    refuse_unknown(stated, "bits desc_act format group_size modules_to_not_convert sym zero_point")
    must_be(stated, "bits", 4)
    must_be(stated, "zero_point", True, missing=True)
    must_be(stated, "desc_act", False, missing=False)
    layout = stated.get("version") or stated.get("format") or "gemm"
    if not isinstance(layout, str) or layout.lower() != "gemm":
        raise ModelError(f"version={shorten(layout)}: only gemm can be read")
    left = stated.get("modules_to_not_convert") or []
    if not is_names(left):
        raise ModelError(f"modules_to_not_convert={shorten(left)}: must be a list of names")
    plain = _plain(n_layers, lambda name: any(n in name for n in left))
    return Int4Format("awq", group_size(stated), True, False, plain, flag_of(stated, "sym"))


def _compressed(stated: Config, n_layers: int, tied: bool) -> Int4Format:
    refuse_unknown(stated, "config_groups format ignore kv_cache_scheme")
    must_be(stated, "format", "pack-quantized")
    must_be(stated, "kv_cache_scheme", None)
    groups = stated.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1 or not isinstance(next(iter(groups.values())), dict):
        raise ModelError(f"config_groups={shorten(groups)}: must be one group, of all layers")
    (group,) = groups.values()
    refuse_unknown(group, "format input_activations output_activations targets weights")
    must_be(group, "targets", ["Linear"])
    must_be(group, "input_activations", None)
    must_be(group, "output_activations", None)
    must_be(group, "format", "pack-quantized", missing="pack-quantized")
    left = stated.get("ignore") or []
    if not is_names(left):
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
    refuse_unknown(stated, known)
    must_be(stated, "num_bits", 4)
    must_be(stated, "type", "int", missing="int")
    must_be(stated, "dynamic", False, missing=False)
    if stated.get("actorder") not in (None, False, "weight", "static"):
        raise ModelError(f"actorder={shorten(stated['actorder'])}: must be null, weight or static")
    size, strategy = group_size(stated, missing=-1), stated.get("strategy")
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
