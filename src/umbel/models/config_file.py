"""Reads the small JSON files of a model directory, which come from strangers: typed, bounded, and never executed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umbel.errors import ModelError

Config = Mapping[str, Any]

MAX_CONFIG_BYTES = 4 * 2**20
MAX_IDS = 1000
MAX_DEPTH = 64
LIMITS = {
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "block_ff_dim": 2**20,
    "block_multiple_of": 2**20,
    "conv_L_cache": 64,
    "full_attention_interval": 1024,
    "linear_conv_kernel_dim": 64,
    "mamba_d_conv": 64,
    "mamba_d_head": 4096,
    "mamba_d_state": 4096,
    "mamba_expand": 64,
    "mamba_n_groups": 1024,
    "mamba_n_heads": 4096,
    "linear_key_head_dim": 1024,
    "linear_num_key_heads": 1024,
    "linear_num_value_heads": 1024,
    "linear_value_head_dim": 1024,
    "moe_intermediate_size": 2**20,
    "shared_expert_intermediate_size": 2**20,
    "shared_intermediate_size": 2**20,
    "num_experts": 4096,
    "num_local_experts": 4096,
    "n_routed_experts": 4096,
    "moe_num_experts": 4096,
    "n_shared_experts": 256,
    "moe_num_shared_experts": 256,
    "num_experts_per_tok": 4096,
    "moe_k": 4096,
    "n_group": 4096,
    "topk_group": 4096,
    "first_k_dense_replace": 1024,
    "decoder_sparse_step": 1024,
    "moe_layer_start_index": 1024,
    "moe_layer_end_index": 1024,
    "moe_layer_interval": 1024,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 1024,
    "rotary_dim": 1024,
    "q_lora_rank": 2**16,
    "kv_lora_rank": 2**14,
    "qk_nope_head_dim": 1024,
    "qk_rope_head_dim": 1024,
    "v_head_dim": 1024,
    "max_position_embeddings": 2**27,
    "original_max_position_embeddings": 2**27,
    "sliding_window": 2**27,
    "max_window_layers": 2**27,
    "sliding_window_pattern": 1024,
    "no_rope_layer_interval": 1024,
}
CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
PLAIN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def read_json(directory: Path, name: str, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any] | None:
    """The JSON object in a file of a model directory, None when there is no such file."""
    path = directory / name
    raw = read_file(path, max_bytes)
    if raw is None:
        return None
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_agreeing)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    with naming(path):
        check_depth(value)
    return value


def check_depth(value: object) -> None:
    """Raise ModelError for a JSON value that is nested deeper than `MAX_DEPTH`: what prints or compares it recurses."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [inner for each in inside for inner in each]
        if not level:
            return
    raise ModelError(f"JSON is nested deeper than {MAX_DEPTH} levels")


def read_file(path: Path, max_bytes: int) -> bytes | None:
    """The bytes of a regular file, None when nothing has this name; without waiting for a pipe's other end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{path}: not a regular file")
        if found.st_size > max_bytes:
            raise ModelError(f"{path}: {found.st_size:,} bytes; such a file is read up to {max_bytes:,}")
        with open(file, "rb", closefd=False) as stream:
            return stream.read(max_bytes)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    finally:
        os.close(file)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file in front of what a ModelError says about a value."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _agreeing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a key that is there twice must say the same, as readers differ on which one counts."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"{shorten(key)} is {shorten(found[key])} and {shorten(value)}")
        found[key] = value
    return found


def refuse_code(config: Config, name: str) -> None:
    """Raise ModelError when a configuration names code to run."""
    for key in CODE_KEYS:
        if config.get(key):
            raise ModelError(f"{name} names custom code ({key}); it is never run, so this model is not supported")
    for key in ATTENTION_KEYS:
        if config.get(key) and config[key] not in PLAIN_ATTENTION:
            raise ModelError(
                f"{name} names attention code ({key}={shorten(config[key])}); it is never run: remove the key"
            )


def plain_heads(config: Config) -> Mapping[str, int]:
    """Heads that share the hidden size evenly, each with keys and values of its own: what some families always have."""
    return {"num_key_value_heads": size_of(config, "num_attention_heads"), **even_heads(config)}


def even_heads(config: Config) -> Mapping[str, int]:
    """Heads that share the hidden size evenly."""
    hidden, heads = size_of(config, "hidden_size"), size_of(config, "num_attention_heads")
    if hidden % heads:
        raise ModelError(f"hidden_size={hidden}: must be a multiple of num_attention_heads={heads}")
    return {"head_dim": hidden // heads}


def size_of(config: Config, key: str, default: int | None = None, *, low: int = 1) -> int:
    """A whole number of at least `low` and at most `LIMITS[key]`; a missing or null key means `default`."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= LIMITS[key]:
        raise ModelError(f"{key}={shorten(value)}: must be a whole number from {low} to {LIMITS[key]:,}")
    return value


def number_of(config: Config, key: str, default: float | None, *, low: float, high: float) -> float:
    """A number from `low` to `high`; a missing or null key means `default`."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"{key}={shorten(value)}: must be a number from {low:g} to {high:g}")
    return float(value)


def flag_of(config: Config, key: str, *, default: bool = False) -> bool:
    """A boolean; a missing or null key means `default`."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ModelError(f"{key}={shorten(value)}: must be true or false")
    return default if value is None else value


def ids_of(config: Config, key: str, default: int | None = None) -> tuple[int, ...]:
    """Token ids given as one number or a list; a missing key means `default`, null and -1 mean none."""
    value = config.get(key, default)
    stated = value if isinstance(value, list) else [] if value is None else [value]
    ids = [i for i in stated if not (is_int(i) and i == -1)]
    if len(ids) > MAX_IDS or not all(is_int(i) and i >= 0 for i in ids):
        raise ModelError(f"{key}={shorten(value)}: must be a token id or a list of at most {MAX_IDS:,}")
    return tuple(ids)


def is_int(value: object) -> bool:
    """Whether a JSON value is a whole number (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether a JSON value is a string without lone surrogates, which JSON can spell and UTF-8 cannot."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def shorten(value: object) -> str:
    """A value as error messages show it: never longer than 80 characters."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply to be shown"
    return text if len(text) <= 80 else text[:77] + "..."
