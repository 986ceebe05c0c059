"""Which Hugging Face model families we understand, where models come from, and how config.json becomes a spec.

config.json is read by an allow-list of keys, each with a type and a range. Keys that would change answers in a way that
we do not compute are refused, and others named in a note (`models/known_keys.py` lists what becomes of each). Absurd
sizes stop here, before anything is allocated. Nothing here needs torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from umbel.errors import ModelError
from umbel.ir.int4_format import Int4Format
from umbel.ir.spec import ModelSpec
from umbel.models.architectures import FAMILIES
from umbel.models.config_file import (
    Config,
    flag_of,
    ids_of,
    naming,
    number_of,
    refuse_code,
    shorten,
    size_of,
)
from umbel.models.family import Family
from umbel.models.generation import defaults_note, sampling_defaults
from umbel.models.int4_config import int4_format, mxfp4_notes
from umbel.models.known_keys import GENERATION_APPLIED, REFUSED
from umbel.models.layer_config import layers_of
from umbel.models.notes import config_notes, generation_notes, generation_source
from umbel.models.pooling_files import head_of, pooler_of
from umbel.models.rope import context_of, rope_notes, rope_theta
from umbel.models.sources.base import ModelSource
from umbel.models.sources.find import GGUF, source_at
from umbel.models.stored import PRODUCTS

GENERATION = "generation_config.json"
MAX_PARAMETERS = 4 * 10**12
DTYPES: Mapping[str, str] = {
    name: dtype
    for dtype, names in {
        "float32": ("float32", "float"), "bfloat16": ("bfloat16",), "float16": ("float16", "half")
    }.items()
    for stated in names
    for name in (stated, f"torch.{stated}")
}  # fmt: skip
"""Names of the types that weights may have, as checkpoints spell them."""
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def resolve_model(name: str) -> Path:
    """Where a model lies: "demo" or "draft" (shipped), a local directory, a GGUF file, or a Hugging Face hub id, whose
    directory is fetched."""
    if name in ("demo", "draft"):
        return _shipped(name)
    path = Path(os.fsdecode(name.encode("utf-8", "surrogateescape"))).expanduser()  # the same in a locale of ASCII
    if name and path.is_dir():
        return _only_gguf(path) or path
    if path.is_file() and path.suffix == GGUF:
        return path
    if path.exists() and name:
        raise ModelError(
            f"model {name!r} is no {GGUF} file: give one, or the directory that holds config.json and *.safetensors"
        )
    if path.suffix == GGUF:
        raise ModelError(f"model {name!r}: no such file")
    if not HUB_ID.fullmatch(name):
        raise ModelError(f"model {name!r}: no such directory, and not a hub id (owner/name), 'demo' or 'draft'")
    return _from_hub(name)


def read_spec(directory: Path, impl: str = "auto", generation_config: str = "auto") -> ModelSpec:
    """The spec of the model in `directory`; raises ModelError on a config that is missing, unsafe or unsupported.
    `impl` says who computes its layers: "native" ours, "transformers" that library's, "auto" ours where they can.
    With `generation_config` "auto" the model's defaults of sampling are applied."""
    applies = generation_config == "auto"
    source = source_at(directory)
    config = source.read_json("config.json")
    if config is None:
        raise ModelError(f"{directory}: no config.json; a model directory holds config.json and *.safetensors")
    generation = source.read_json(GENERATION)
    with naming(source.place(GENERATION)):
        ends = ids_of(generation or {}, "eos_token_id")
    with naming(source.place("config.json")):
        refuse_code(config, "config.json")
        if impl == "transformers" or (impl == "auto" and config.get("model_type") not in [*FAMILIES]):
            spec = _with_pooler(_hosted_spec(config, generation, ends, source.notes(config), applies), source, config)
            return _with_defaults(spec, *generation_source(config, generation)) if applies else spec
        beside = source.notes(config)
        spec = _with_pooler(_check_totals(_spec(config, generation, ends, applies)), source, config)
    spec = replace(spec, notes=(*spec.notes, *beside))
    if applies:
        spec = _with_defaults(spec, *generation_source(config, generation))
    if not spec.tied_embeddings or not source.has_other_head(spec):
        return spec
    note = (
        "config.json: tie_word_embeddings=True, but lm_head.weight is not the embedding: it is used, as in transformers"
    )
    return replace(spec, tied_embeddings=False, notes=(*spec.notes, note))


def _with_pooler(spec: ModelSpec, source: ModelSource, config: Config) -> ModelSpec:
    """The spec with what the model gives instead of tokens. What has no head for tokens has no table of its own for
    one."""
    head = "tokens" if spec.hosted is not None else head_of(config, FAMILIES[spec.family].architecture)
    pooler, notes = pooler_of(source, config, head)
    pooler = replace(pooler, hidden=spec.hidden_size)
    if pooler.runner == "pooling" and pooler.has_head and not spec.tied_embeddings and source.lacks_head(spec):
        pooler = replace(pooler, has_head=False)
    tied = spec.tied_embeddings or not pooler.has_head
    return replace(spec, pooler=pooler, tied_embeddings=tied, notes=(*spec.notes, *notes))


def _hosted_spec(
    config: Config, generation: Config | None, ends: tuple[int, ...], beside: list[str], applies: bool
) -> ModelSpec:
    """The spec of a model whose layers transformers computes."""
    from umbel.models.hosted.spec import hosted_spec  # here, as most models need neither it nor torch

    spec = _check_totals(hosted_spec(config, ends, _dtype(config)))
    applied, own_ends = GENERATION_APPLIED if applies else (), ids_of(config, "eos_token_id")
    notes = generation_notes(config, generation, spec.max_positions, own_ends, applied)
    return replace(spec, notes=(*spec.notes, *notes, *beside))


def _shipped(name: str) -> Path:
    from umbel.demo import path  # here, as the package may be installed without its models

    directory = path(name)
    if not directory.is_dir():
        raise ModelError(f"model {name!r} is not in this installation ({directory}): reinstall umbel, or name another")
    return directory


def _only_gguf(directory: Path) -> Path | None:
    """The GGUF file of a directory that holds one, and no config.json. Raises ModelError where it holds several."""
    found = [] if (directory / "config.json").exists() else sorted(directory.glob(f"*{GGUF}"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise ModelError(f"{directory}: no config.json, and {len(found)} models ({names}): give one of the files")
    return found[0] if found else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # here, as most runs need no hub and importing it takes long

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub client raises errors of several HTTP libraries
        raise ModelError(
            f"model {name!r}: no such directory, no copy from the hub ({type(error).__name__}: {shorten(str(error))}). "
            "Check the name and the network (HF_HUB_OFFLINE, HF_TOKEN), or give a directory that holds the model"
        ) from error


def _refuse_keys(config: Config, family: Family) -> None:
    for key, neutral in (REFUSED | dict(family.refused)).items():
        if key in config and key not in family.obeyed and config[key] not in neutral:
            raise ModelError(f"{key}={shorten(config[key])}: this changes what a model computes, and is not supported")


def _with_defaults(spec: ModelSpec, name: str, stated: Config) -> ModelSpec:
    """The spec with the defaults of sampling that a file states, and a note that says them."""
    defaults = sampling_defaults(stated, name)
    if not defaults:
        return spec
    return replace(spec, sampling=defaults, notes=(*spec.notes, defaults_note(defaults, name)))


def _spec(config: Config, generation: Config | None, ends: tuple[int, ...], applies: bool) -> ModelSpec:
    stated, family, kind = config, _family(config), str(config["model_type"])
    config = _in_our_names(config, family)
    n_layers, n_heads = size_of(config, "num_hidden_layers"), size_of(config, "num_attention_heads")
    hidden_size = size_of(config, "hidden_size")
    head_dim, context = _head_dim(config, family, hidden_size, n_heads), context_of(config, family)
    vocab_size = size_of(config, "vocab_size")
    own_ends = ids_of(config, "eos_token_id", family.eos)
    known, unknown = _split_ids({*own_ends, *ends}, vocab_size)
    notes = config_notes(stated, kind, family.known, context) + rope_notes(config, family) + mxfp4_notes(config)
    notes += generation_notes(stated, generation, context, own_ends, GENERATION_APPLIED if applies else ())
    if unknown:
        notes.append(f"eos_token_id {shorten(unknown)} is beyond vocab_size={vocab_size}: it ends no answer")
    return ModelSpec(
        family=kind,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=size_of(config, "num_key_value_heads", n_heads),
        head_dim=head_dim,
        intermediate_size=family.width(config),
        max_positions=context,
        norm_eps=number_of(config, "rms_norm_eps", family.norm_eps, low=0.0, high=1.0),
        rope_theta=rope_theta(config, family),
        layers=layers_of(config, family, n_layers, head_dim),
        edges=family.edges(config),
        tied_embeddings=flag_of(config, "tie_word_embeddings"),
        dtype=_dtype(config),
        bos_token_id=next(iter(_split_ids(ids_of(config, "bos_token_id", family.bos), vocab_size)[0]), None),
        eos_token_ids=known,
        quantization=_quantization(config, family, n_layers),
        experts=family.experts(config, n_layers) if family.experts else None,
        notes=tuple(notes),
    )


def _family(config: Config) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(f"model_type={shorten(kind)}: must be one of {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    _refuse_keys(config, family)
    return family


def _in_our_names(config: Config, family: Family) -> Config:
    """The config with the names of keys and the values of missing ones that Llama's relatives have."""
    for ours, theirs in family.names.items():
        if ours in config and config[ours] != config.get(theirs):
            raise ModelError(f"{ours}={shorten(config[ours])}: models of this kind call it {theirs}")
    whole = dict(family.defaults) | dict(config)
    whole |= {ours: whole[theirs] for ours, theirs in family.names.items() if theirs in whole}
    derived = {} if family.derive is None else family.derive(whole)
    for key, value in derived.items():
        if config.get(key, value) not in (None, value):
            raise ModelError(f"{key}={shorten(config[key])}: models of this kind have {value!r}")
    return whole | derived


def _quantization(config: Config, family: Family, n_layers: int) -> Int4Format | None:
    form = int4_format(config, n_layers, tied=flag_of(config, "tie_word_embeddings"))
    if form is not None and family.recurrence is not None:
        raise ModelError("quantization_config: 4-bit weights around a recurrence cannot be read: use the original")
    if form is not None and any(family.stored.products[name] != PRODUCTS[name] for name in ("qkv", "o", "down")):
        raise ModelError("quantization_config: 4-bit weights of this kind of model cannot be read: use the original")
    return form


def _head_dim(config: Config, family: Family, hidden_size: int, n_heads: int) -> int:
    default = family.head_dim or (hidden_size // n_heads if hidden_size % n_heads == 0 else None)
    head_dim = size_of(config, "head_dim", default)
    if head_dim % 2:
        raise ModelError(f"head_dim={head_dim}: must be even, as rotary positions turn pairs")
    return head_dim


def _split_ids(ids: Iterable[int], vocab_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids in order: those that a model can write, and those beyond its vocabulary."""
    ordered = sorted(ids)
    return tuple(i for i in ordered if i < vocab_size), tuple(i for i in ordered if i >= vocab_size)


def _dtype(config: Config) -> str:
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelError(f"dtype={shorten(dtype)}: must be float32, bfloat16 or float16")
    return DTYPES[dtype]


def _check_totals(spec: ModelSpec) -> ModelSpec:
    """Raise ModelError on values that are fine one by one but not together; gives the spec back."""
    if spec.n_heads % spec.n_kv_heads:
        raise ModelError(f"num_attention_heads={spec.n_heads} is no multiple of num_key_value_heads={spec.n_kv_heads}")
    heads = 2 * (spec.n_heads + spec.n_kv_heads) * spec.head_dim
    inner = max(spec.intermediate_size, spec.experts.count * spec.experts.width if spec.experts else 0)
    per_layer = spec.hidden_size * (heads + 3 * inner)
    total = spec.n_layers * per_layer + 2 * spec.vocab_size * spec.hidden_size
    if total > MAX_PARAMETERS:
        raise ModelError(f"the sizes multiply to {total:,} parameters: at most {MAX_PARAMETERS:,} are accepted")
    if spec.experts and spec.quantization:
        raise ModelError("quantization_config: experts in 4 bits cannot be read: use the original model")
    return spec
