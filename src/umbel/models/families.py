"""Which Hugging Face model families we understand, where models come from, and how config.json becomes a spec.

config.json is read by an allow-list of keys, each with a type and a range; other keys are ignored, those that name code
are refused. Absurd sizes stop here, before anything is allocated. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from umbel.config import nearest
from umbel.errors import ModelError
from umbel.ir.experts import Experts
from umbel.ir.spec import ModelSpec, RopeScaling
from umbel.models.config_file import Config, flag_of, ids_of, number_of, read_json, refuse_code, shorten, size_of
from umbel.models.experts_config import mixtral_experts, qwen3_moe_experts
from umbel.models.int4_config import int4_format

MAX_PARAMETERS = 4 * 10**12
DTYPES = ("float32", "bfloat16", "float16")
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True, slots=True)
class Family:
    """How one `model_type` differs from the others.

    A bias that is None follows the config's `attention_bias` or `mlp_bias`. `window` says when `sliding_window` counts:
    "never", "always", as `use_sliding_window` "asks", or so for "all" layers. `experts` reads what they are. The others
    hold where the config has no such key.
    """

    architecture: str
    qkv_bias: bool | None
    o_bias: bool | None
    mlp_bias: bool | None
    window: Literal["never", "always", "asks", "all"]
    qk_norm: bool = False
    head_dim: int | None = None
    bos: int | None = None
    eos: int | None = None
    window_size: int | None = 4096
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    experts: Callable[[Config, int], Experts | None] | None = None


FAMILIES: Mapping[str, Family] = {
    "llama": Family("LlamaForCausalLM", None, None, None, "never", bos=1, eos=2),
    "mistral": Family("MistralForCausalLM", False, False, False, "always", bos=1, eos=2),
    "qwen2": Family("Qwen2ForCausalLM", True, False, False, "asks"),
    "qwen3": Family("Qwen3ForCausalLM", None, None, False, "asks", qk_norm=True, head_dim=128),
    "mixtral": Family(
        "MixtralForCausalLM",
        False,
        False,
        False,
        "always",
        bos=1,
        eos=2,
        window_size=None,
        rope_theta=1e6,
        rms_norm_eps=1e-5,
        experts=mixtral_experts,
    ),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", None, None, False, "all", qk_norm=True, experts=qwen3_moe_experts),
}


def resolve_model(name: str) -> Path:
    """The directory of a model: "demo" or "draft" (shipped), a local directory, or a Hugging Face hub id (fetched)."""
    if name in ("demo", "draft"):
        return _shipped(name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"model {name!r} is a file: give the directory that holds config.json and *.safetensors")
    if not HUB_ID.fullmatch(name):
        raise ModelError(f"model {name!r}: no such directory, and not a hub id (owner/name), 'demo' or 'draft'")
    return _from_hub(name)


def read_spec(directory: Path) -> ModelSpec:
    """The spec of the model in `directory`; raises ModelError on a config that is missing, unsafe or unsupported."""
    config = read_json(directory, "config.json")
    if config is None:
        raise ModelError(f"{directory}: no config.json; a model directory holds config.json and *.safetensors")
    try:
        refuse_code(config, "config.json")
        return _check_totals(_spec(config, read_json(directory, "generation_config.json") or {}))
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from None


def _shipped(name: str) -> Path:
    from umbel.demo import path  # here, as the package may be installed without its models

    directory = path(name)
    if not directory.is_dir():
        raise ModelError(f"model {name!r} is not in this installation ({directory}): reinstall umbel, or name another")
    return directory


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # here, as most runs need no hub and importing it takes long

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub client raises errors of several HTTP libraries
        raise ModelError(
            f"model {name!r}: no such directory, no copy from the hub ({type(error).__name__}: {shorten(str(error))}). "
            "Check the name and the network (HF_HUB_OFFLINE, HF_TOKEN), or give a directory that holds the model"
        ) from error


def _spec(config: Config, generation: Config) -> ModelSpec:
    family = _family(config)
    n_layers, n_heads = size_of(config, "num_hidden_layers"), size_of(config, "num_attention_heads")
    hidden_size = size_of(config, "hidden_size")
    attention_bias, mlp_bias = flag_of(config, "attention_bias"), flag_of(config, "mlp_bias")
    return ModelSpec(
        family=config["model_type"],
        vocab_size=size_of(config, "vocab_size"),
        hidden_size=hidden_size,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=size_of(config, "num_key_value_heads", n_heads),
        head_dim=_head_dim(config, family, hidden_size, n_heads),
        intermediate_size=size_of(config, "intermediate_size"),
        max_positions=size_of(config, "max_position_embeddings"),
        rms_norm_eps=number_of(config, "rms_norm_eps", family.rms_norm_eps, low=0.0, high=1.0),
        rope_theta=_rope_theta(config, family),
        rope_scaling=_rope_scaling(config),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        o_bias=attention_bias if family.o_bias is None else family.o_bias,
        mlp_bias=mlp_bias if family.mlp_bias is None else family.mlp_bias,
        qk_norm=family.qk_norm,
        tied_embeddings=flag_of(config, "tie_word_embeddings"),
        sliding_window=_sliding_window(config, family, n_layers),
        dtype=_dtype(config),
        bos_token_id=next(iter(ids_of(config, "bos_token_id", family.bos)), None),
        eos_token_ids=_eos_ids(config, generation, family),
        quantization=int4_format(config, n_layers, tied=flag_of(config, "tie_word_embeddings")),
        experts=family.experts(config, n_layers) if family.experts else None,
    )


def _family(config: Config) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        hint = nearest(kind, FAMILIES) if isinstance(kind, str) else ""
        raise ModelError(f"model_type={shorten(kind)}: must be one of {', '.join(FAMILIES)}{hint}")
    family = FAMILIES[kind]
    named = config.get("architectures")
    if named and named != [family.architecture]:
        raise ModelError(f"architectures={shorten(named)}: of {kind!r} models only {family.architecture} is supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"hidden_act={shorten(config['hidden_act'])}: only 'silu' is supported")
    return family


def _head_dim(config: Config, family: Family, hidden_size: int, n_heads: int) -> int:
    default = family.head_dim or (hidden_size // n_heads if hidden_size % n_heads == 0 else None)
    head_dim = size_of(config, "head_dim", default)
    if head_dim % 2:
        raise ModelError(f"head_dim={head_dim}: must be even, as rotary positions turn pairs")
    return head_dim


def _sliding_window(config: Config, family: Family, n_layers: int) -> int | None:
    """The window of all layers, None for full attention; models whose layers differ are refused."""
    counts = family.window == "always" or (family.window in ("asks", "all") and flag_of(config, "use_sliding_window"))
    # Unlike elsewhere, null differs from a missing key: it means that there is no window.
    has_window = counts and config.get("sliding_window", family.window_size) is not None
    window = size_of(config, "sliding_window", 4096) if has_window else None
    if family.window != "asks":
        return window
    n_full = n_layers if window is None else min(n_layers, size_of(config, "max_window_layers", 28, low=0))
    kinds = config.get("layer_types") or ["full_attention"] * n_full + ["sliding_attention"] * (n_layers - n_full)
    if kinds == ["full_attention"] * n_layers:
        return None
    if window is not None and kinds == ["sliding_attention"] * n_layers:
        return window
    raise ModelError(f"layers with and without a sliding window are not supported (window {window}, {shorten(kinds)})")


def _rope(config: Config) -> Config:
    """The rotary settings, under the name of transformers 5 or of its predecessors."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ModelError(f"rope_parameters={shorten(rope)}: must be one object of settings that hold for all layers")
    for source in (rope, config):
        if source.get("partial_rotary_factor") not in (None, 1.0):
            raise ModelError(f"partial_rotary_factor={shorten(source['partial_rotary_factor'])}: must be 1")
    return rope


def _rope_theta(config: Config, family: Family) -> float:
    rope = _rope(config)
    source = rope if rope.get("rope_theta") is not None else config
    return number_of(source, "rope_theta", family.rope_theta, low=1.0, high=1e12)


def _rope_scaling(config: Config) -> RopeScaling | None:
    rope = _rope(config)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise ModelError(f"rope_type={shorten(kind)}: must be one of default, linear, llama3")
    factor = number_of(rope, "factor", None, low=1.0, high=1e6)
    if kind == "linear":
        return RopeScaling("linear", factor)
    low = number_of(rope, "low_freq_factor", None, low=1e-6, high=1e6)
    high = number_of(rope, "high_freq_factor", None, low=1e-6, high=1e6)
    if high <= low:
        raise ModelError(f"high_freq_factor={high} must be above low_freq_factor={low}")
    context = size_of(rope, "original_max_position_embeddings", size_of(config, "max_position_embeddings"))
    return RopeScaling("llama3", factor, low, high, context)


def _eos_ids(config: Config, generation: Config, family: Family) -> tuple[int, ...]:
    """Ids that end an answer: those of config.json and generation_config.json together, as chat models split them."""
    return tuple(sorted({*ids_of(config, "eos_token_id", family.eos), *ids_of(generation, "eos_token_id")}))


def _dtype(config: Config) -> str:
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    if dtype not in DTYPES:
        raise ModelError(f"dtype={shorten(dtype)}: must be one of {', '.join(DTYPES)}")
    return str(dtype)


def _check_totals(spec: ModelSpec) -> ModelSpec:
    """Raise ModelError on values that are fine one by one but not together; gives the spec back."""
    if spec.n_heads % spec.n_kv_heads:
        raise ModelError(f"num_attention_heads={spec.n_heads} is no multiple of num_key_value_heads={spec.n_kv_heads}")
    for token_id in (*spec.eos_token_ids, spec.bos_token_id or 0):
        if token_id >= spec.vocab_size:
            raise ModelError(f"bos or eos token id {token_id}: must be below vocab_size={spec.vocab_size}")
    heads = 2 * (spec.n_heads + spec.n_kv_heads) * spec.head_dim
    inner = max(spec.intermediate_size, spec.experts.count * spec.experts.width if spec.experts else 0)
    per_layer = spec.hidden_size * (heads + 3 * inner)
    total = spec.n_layers * per_layer + 2 * spec.vocab_size * spec.hidden_size
    if total > MAX_PARAMETERS:
        raise ModelError(f"the sizes multiply to {total:,} parameters: at most {MAX_PARAMETERS:,} are accepted")
    if spec.experts and spec.quantization:
        raise ModelError("quantization_config: experts in 4 bits cannot be read: use the original model")
    return spec
