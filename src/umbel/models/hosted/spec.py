"""The spec of a model that runs through transformers: from its config by names that types share, and from a probe."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.models.config_file import LIMITS, Config, ids_of, shorten, size_of
from umbel.models.hosted.classes import class_of
from umbel.models.hosted.probe import probe

GROWING = {"dynamic": "max_position_embeddings", "longrope": "original_max_position_embeddings"}
"""Kinds of rotary positions that are others for a sequence beyond so many tokens, also for its first ones."""
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")
NO_KEY = ("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path")
CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel")
LARGEST = 2**40  # of any number: a config's sizes are checked by name, these only against nonsense


def hosted_spec(config: Config, ends: tuple[int, ...], dtype: str) -> ModelSpec:
    """The spec of a model of config.json `config`; `ends` are the end tokens of generation_config.json, `dtype` is what
    weights are stored in. Raises ModelError for what cannot be run so."""
    model_class, made = parts_of(config)
    context, notes = _context(made)
    hosted, vocab_size = probe(model_class, _still(made), context)
    known = sorted({*ids_of({"ends": made.eos_token_id}, "ends"), *ends})
    notes += _spare_keys(config, made)
    if not hosted.own_products:
        notes.append("some of its products are torch's own: the last bits of an answer may depend on other rows")
    if beyond := [end for end in known if end >= vocab_size]:
        notes.append(f"eos_token_id {shorten(beyond)} is beyond vocab_size={vocab_size}: it ends no answer")
    first = hosted.layers[0].kv
    return ModelSpec(
        family=str(config["model_type"]),
        vocab_size=vocab_size,
        hidden_size=int(made.hidden_size),
        n_layers=len(hosted.layers),
        n_heads=first.n_heads,
        n_kv_heads=first.n_kv_heads,
        head_dim=first.key_dim,
        intermediate_size=1,
        max_positions=context,
        norm_eps=0.0,
        rope_theta=0.0,
        tied_embeddings=False,  # heads are products of their own, also where they have the same numbers
        dtype=dtype,
        bos_token_id=next(iter(ids_of({"bos": made.bos_token_id}, "bos")), None),
        eos_token_ids=tuple(end for end in known if end < vocab_size),
        hosted=hosted,
        notes=(f"through transformers {transformers.__version__} ({hosted.architecture}): slower", *notes),
    )


def parts_of(config: Config) -> tuple[type[PreTrainedModel], PreTrainedConfig]:
    """The class and the config of transformers of a config.json."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(f"model_type={shorten(kind)}: must name a type of models")
    try:
        model_class = class_of(kind)
    except ModelError as error:
        raise ModelError(f"model_type={shorten(kind)}: {error}") from None
    _check_named(config, model_class)
    _check_sizes(config)
    try:
        made = CONFIG_MAPPING[kind].from_dict(dict(config))
    except Exception as error:  # whatever the checks of two hundred config classes raise
        raise ModelError(f"transformers refuses it: {shorten(str(error).strip())}") from error
    made.use_cache = False
    return model_class, made


def _check_named(config: Config, model_class: type[PreTrainedModel]) -> None:
    """Raise ModelError for a checkpoint with another head than a causal one, or with packed weights."""
    named = config.get("architectures") or [model_class.__name__]
    if not (
        isinstance(named, list) and len(named) == 1 and str(named[0]).endswith((*CAUSAL_HEADS, model_class.__name__))
    ):
        way = "for embeddings or classes take a decoder such as Qwen3-Embedding; encoders are not supported"
        raise ModelError(f"architectures={shorten(named)}: only {model_class.__name__} is supported; {way}")
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise ModelError(f"{key}: through transformers, weights are read as float32, bfloat16 or float16 only")
    if config.get("is_causal") is False or config.get("add_cross_attention"):
        raise ModelError("is_causal, add_cross_attention: only causal decoders are supported")


def _check_sizes(config: Config) -> None:
    """Raise ModelError for sizes that no model has, before anything is made of them."""
    for key in LIMITS.keys() & config.keys():
        if isinstance(config[key], (int, float)) and not isinstance(config[key], bool):
            size_of(config, key, low=0)
    for key, value in config.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ModelError(f"{key}={shorten(value)}: numbers up to {LARGEST:,} are read")
    for key in ("n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"):
        if key in config:
            size_of({"num_hidden_layers": config[key]}, "num_hidden_layers")


def _context(made: PreTrainedConfig) -> tuple[int, list[str]]:
    """How many positions a sequence may have, and why it is fewer than the config says, if so."""
    stated = next((value for name in CONTEXT if isinstance(value := getattr(made, name, None), int)), None)
    if stated is None:
        raise ModelError(f"its config has no context length ({', '.join(CONTEXT)})")
    context, notes = size_of({"max_position_embeddings": stated}, "max_position_embeddings"), []
    for rope in _ropes(getattr(made, "rope_parameters", None)):
        kind = rope.get("rope_type")
        limit = rope.get(GROWING[kind], getattr(made, GROWING[kind], None)) if kind in GROWING else None
        if isinstance(limit, int) and limit < context:
            context = limit
            notes.append(
                f"{kind} positions of a sequence beyond {limit:,} tokens change those before: contexts end there"
            )
    return context, notes


def _ropes(stated: Any) -> Iterator[dict[str, Any]]:
    """The kinds of rotary positions in a config, one for each kind of layer or one for all."""
    if isinstance(stated, dict):
        inner = [value for value in stated.values() if isinstance(value, dict)]
        yield from inner if inner and "rope_type" not in stated else (stated,)


def _still(made: PreTrainedConfig) -> PreTrainedConfig:
    """The config with rotary positions of one kind that does not look at them, for a pass without numbers."""
    found = deepcopy(made)
    for rope in _ropes(getattr(found, "rope_parameters", None)):
        if rope.get("rope_type") in GROWING:
            rope["rope_type"] = "default"
    return found


def _spare_keys(config: Config, made: PreTrainedConfig) -> list[str]:
    """A note with the keys that this type of config does not know."""
    known = {*type(made)().to_dict(), *type(made).attribute_map, *NO_KEY}
    spare = [key for key in config if key not in known and config[key] not in (None, False, "", [], {})]
    return [f"config.json: not used by {config['model_type']!r} models: {shorten(sorted(spare))}"] if spare else []
