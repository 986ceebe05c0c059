"""Reads soft prompts as PEFT writes them: what adapter_config.json says, and the shape of its one tensor.

PREFIX_TUNING (P-Tuning v2, 2110.07602; 2101.00190) keeps keys and values of every layer, as they stand in the cache:
behind norms and rotary positions. PROMPT_TUNING (2104.08691) and P_TUNING (2103.10385) keep embeddings. What computed
these in training, a perceptron or an LSTM, is not needed any more: PEFT saves what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from umbel.errors import ModelError
from umbel.ir.adapter import Adapter
from umbel.ir.spec import ModelSpec
from umbel.models.config_file import Config, is_int, read_json, shorten
from umbel.models.safetensors_header import TensorEntry, read_header

KINDS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
CONFIG_FILE, WEIGHTS_FILE, TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
FLOATS = ("F32", "BF16", "F16")
_OBEYED = frozenset(
    ("peft_type", "task_type", "num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers", "auto_mapping")
)
_HARMLESS = frozenset(
    (
        *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "init_weights", "prefix_projection"),
        *("encoder_hidden_size", "encoder_reparameterization_type", "encoder_num_layers", "encoder_dropout"),
        *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    )
)
_NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType({"num_transformer_submodules": (None, 1)})
_NOTHING: tuple[object, ...] = (None, False, {}, [], "")


def soft_kind(directory: Path) -> str | None:
    """Which kind of soft prompt lies in a directory, None for anything else."""
    config = read_json(directory, CONFIG_FILE)
    kind = None if config is None else config.get("peft_type")
    return kind if isinstance(kind, str) and kind in KINDS else None


def read_soft_prompt(name: str, directory: Path, spec: ModelSpec, digest: str) -> Adapter:
    """The shape of a soft prompt. Raises ModelError for one that is damaged, or that this model cannot have."""
    config, entry = read_json(directory, CONFIG_FILE) or {}, tensor_of(directory)
    _check_keys(config)
    kind, places = str(config["peft_type"]), config.get("num_virtual_tokens")
    if not is_int(places) or not 1 <= places < spec.max_positions:
        raise ModelError(f"num_virtual_tokens={shorten(places)}: must be from 1 to below the context of the model")
    check_kind(spec, kind)
    width = _width(spec, kind, config)
    if entry.shape != (places, width) or entry.dtype not in FLOATS:
        found = f"{TENSOR} is {list(entry.shape)} of {entry.dtype}"
        raise ModelError(f"{found}, this model makes it {[places, width]} of {', '.join(FLOATS)}: is it of another?")
    return Adapter(name, str(directory), digest, (0, 0), (), places, places * width)


def tensor_of(directory: Path) -> TensorEntry:
    """Where the one tensor of a soft prompt lies."""
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"no {WEIGHTS_FILE}: PEFT's save_pretrained writes it")
    entries = read_header(path)
    for name in entries.keys() ^ {TENSOR}:
        raise ModelError(f"{shorten(name)}: a soft prompt has {TENSOR} and no other tensor")
    return entries[TENSOR]


def check_kind(spec: ModelSpec, kind: str) -> None:
    """Raise ModelError for a model that cannot have a soft prompt of a kind."""
    if spec.recurrences:
        raise ModelError(f"{kind}: {spec.family!r} models keep states in layers, which take no soft prompts here")
    if kind != "PREFIX_TUNING" and spec.edges.embedding_scale != 1.0:
        raise ModelError(f"{kind}: {spec.family!r} models scale their embeddings, which takes no soft prompt here")
    if kind == "PREFIX_TUNING" and len({(s.n_kv_heads, s.key_dim, s.value_dim) for s in spec.kv_shapes}) > 1:
        raise ModelError(f"{kind}: the layers of this {spec.family!r} model differ in heads, which no prefix can have")


def _width(spec: ModelSpec, kind: str, config: Config) -> int:
    """Numbers of a position. Raises ModelError where the config says that it was made for other sizes."""
    if kind != "PREFIX_TUNING":
        sizes = {"num_layers": spec.n_layers, "token_dim": spec.hidden_size}
    else:
        shape = spec.kv_shapes[0]
        sizes = {"num_layers": spec.n_layers, "num_attention_heads": shape.n_kv_heads}
        sizes["token_dim"] = shape.n_kv_heads * shape.key_dim
    for key, size in sizes.items():
        if config.get(key) not in (None, size):
            raise ModelError(f"{key}={shorten(config[key])}: this model makes it {size}: is it of another model?")
    return sizes["token_dim"] * (2 * spec.n_layers if kind == "PREFIX_TUNING" else 1)


def _check_keys(config: Config) -> None:
    """Raise ModelError for a setting that is not computed here."""
    if (task := config.get("task_type")) not in (None, "CAUSAL_LM"):
        raise ModelError(f"task_type={shorten(task)}: only adapters of models that write text (CAUSAL_LM) are computed")
    for key, value in config.items():
        neutral = _NEUTRAL.get(key, _NOTHING)
        if key not in _OBEYED | _HARMLESS and not any(type(value) is type(n) and value == n for n in neutral):
            raise ModelError(f"{key}={shorten(value)}: this is not supported")
