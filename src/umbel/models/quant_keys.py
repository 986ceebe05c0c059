"""Reads single keys of a `quantization_config`, for all ways of storing weights: what is not known is refused."""

from __future__ import annotations

import json

from umbel.errors import ModelError
from umbel.models.config_file import Config, is_int, shorten

KEY = "quantization_config"
LARGEST = 2**20  # inputs of a group
HISTORY = frozenset((
    "act_group_aware", "backend", "batch_size", "block_name_to_quantize", "cache_block_outputs",
    "damp_auto_increment", "damp_percent", "dataset", "disable_exllama", "do_fuse", "exllama_config",
    "fuse_max_seq_len", "global_compression_ratio", "max_input_length", "meta", "model_file_base_name",
    "model_name_or_path", "model_seqlen", "module_name_preceding_first_block", "modules_to_fuse", "mse",
    "pad_token_id", "quant_method", "quantization_status", "static_groups", "tokenizer", "true_sequential",
    "use_cuda_fp16", "use_exllama", "version",
))  # fmt: skip
"""Keys that say how weights were made or which kernels others should use, not what the weights mean."""


def group_size(stated: Config, missing: int = 128) -> int | None:
    """Inputs that share a scale, None for all (stored as -1)."""
    size = stated.get("group_size")
    size = missing if size is None else size
    if not is_int(size) or size == 0 or not -1 <= size <= LARGEST or (size > 0 and size % 2):
        raise ModelError(f"group_size={shorten(size)}: must be -1 or an even number of up to {LARGEST:,}")
    return None if size == -1 else size


def must_be(stated: Config, key: str, only: object, missing: object = None) -> None:
    """Raise ModelError unless a key says this alone; `missing`: what it says where it is not there."""
    value = stated.get(key)
    value = missing if value is None else value
    if type(value) is not type(only) or value != only:
        raise ModelError(f"{key}={shorten(value)}: only {json.dumps(only)} is supported")


def refuse_unknown(stated: Config, known: str) -> None:
    """Raise ModelError for a key that is not among `known` (names and blanks) and says something."""
    for key, value in stated.items():
        if value not in (None, False, {}, [], "") and key not in HISTORY and key not in known.split():
            raise ModelError(
                f"{shorten(key)}={shorten(value)}: this key is not known, and may change what weights mean"
            )


def is_names(value: object, depth: int = 1) -> bool:
    """Whether a JSON value is a list of strings (or a list of such lists, at depth 2)."""
    if not isinstance(value, list):
        return False
    return all(isinstance(each, str) if depth == 1 else is_names(each) for each in value)
