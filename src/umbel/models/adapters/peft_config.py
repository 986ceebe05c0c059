"""Reads adapter_config.json as PEFT writes it, by an allow-list: what changes answers and is not obeyed is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from umbel.errors import ModelError
from umbel.models.config_file import Config, flag_of, is_int, number_of, read_json, shorten

CONFIG_FILE = "adapter_config.json"
MAX_RANK = 4096
_NOTHING: tuple[object, ...] = (None, False, {}, [], "")
_OBEYED = frozenset(
    (
        *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules"),
        *("layers_to_transform", "layers_pattern", "exclude_modules", "fan_in_fan_out", "task_type", "auto_mapping"),
    )
)
_HARMLESS = frozenset(
    (
        *("base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "peft_version", "megatron_core"),
        *("qalora_group_size", "ensure_weight_tying", "eva_config", "lora_ga_config", "loftq_config"),
    )
)
_NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {"bias": ("none", None), "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "lora_ga", None)}
)
_WHY: Mapping[str, str] = MappingProxyType(
    {
        "bias": "biases of the base model that were trained too are not read",
        "init_lora_weights": "it changes the weights of the base model: convert the adapter to a plain LoRA (PEFT: "
        "save_pretrained with path_initial_model_for_weight_conversion)",
        "modules_to_save": "whole modules that were trained too are not read",
        "trainable_token_indices": "rows of the embedding that were trained too are not read",
        "use_dora": "the magnitudes of DoRA are not computed: merge the adapter into the weights",
        "target_parameters": "adapters of single parameters, such as experts, are not computed",
    }
)
_SAFE_PATTERN = re.compile(r"\^?[\w.\\*+]{1,200}\$?")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What an adapter_config.json says of a LoRA: rank, alpha and their patterns by module, whether it is divided by
    the rank's root (rsLoRA, 2312.03732); `targets` are the names of modules that all of the model's have an adapter
    of, () where that is not said by name; `base` is the class that it was made for, if it is said."""

    rank: int
    alpha: float
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    by_root: bool
    targets: tuple[str, ...] = ()
    base: str | None = None

    @classmethod
    def read(cls, directory: Path) -> PeftConfig:
        """The config in a directory. Raises ModelError for one that is missing or not understood."""
        config = read_json(directory, CONFIG_FILE)
        if config is None:
            raise ModelError(f"no {CONFIG_FILE}: give the directory that PEFT's save_pretrained wrote")
        _check_keys(config)
        ranks, alphas = (_pattern_of(config, f"{kind}_pattern") for kind in ("rank", "alpha"))
        rank = config.get("r", 8)
        if not is_int(rank) or not 1 <= rank <= MAX_RANK:
            raise ModelError(f"r={shorten(rank)}: must be a whole number from 1 to {MAX_RANK:,}")
        alpha = number_of(config, "lora_alpha", 8.0, low=-1e6, high=1e6)
        return cls(rank, alpha, ranks, alphas, flag_of(config, "use_rslora"), _targets(config), _base(config))

    def rank_of(self, module: str) -> int:
        """The rank of a module's adapter."""
        return int(_matched(self.ranks, module, self.rank))

    def scale_of(self, module: str, rank: int) -> float:
        """What the product of a module's adapter is multiplied by."""
        return _matched(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.by_root else rank)


def _check_keys(config: Config) -> None:
    """Raise ModelError for a kind of adapter, or a setting, that is not computed here."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"peft_type={shorten(kind)}: only adapters of low rank (LORA) and soft prompts are computed")
    if (task := config.get("task_type")) not in (None, "CAUSAL_LM"):
        raise ModelError(f"task_type={shorten(task)}: only adapters of models that write text (CAUSAL_LM) are computed")
    for key, value in config.items():
        neutral = _NEUTRAL.get(key, _NOTHING)
        if key not in _OBEYED | _HARMLESS and not any(type(value) is type(n) and value == n for n in neutral):
            raise ModelError(f"{key}={shorten(value)}: {_WHY.get(key, 'this is not supported')}")


def _pattern_of(config: Config, key: str) -> Mapping[str, float]:
    """Numbers by module, whose names may be simple regular expressions; others could take a very long time to match."""
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise ModelError(f"{key}={shorten(found)}: must give a number for each module")
    for name, value in found.items():
        if not _SAFE_PATTERN.fullmatch(name) or name.count("*") + name.count("+") > 3 or name.endswith("\\"):
            raise ModelError(f"{key}: {shorten(name)} is no name of a module, nor a simple pattern of one")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) <= 1e6:
            raise ModelError(f"{key}: {shorten(name)} has {shorten(value)}, which must be a number up to 1,000,000")
        try:
            re.compile(name)
        except re.error as error:
            raise ModelError(f"{key}: {shorten(name)} is no pattern ({error})") from None
    return found


def _matched(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The number of the first pattern that is the end of a module's name, as PEFT finds it."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _targets(config: Config) -> tuple[str, ...]:
    """Names that every module of that name has an adapter of."""
    asked = config.get("target_modules")
    if asked is not None and not isinstance(asked, str) and not _are_names(asked):
        raise ModelError(f"target_modules={shorten(asked)}: must be names of modules")
    partly = any(config.get(key) not in (None, []) for key in ("layers_to_transform", "exclude_modules"))
    return () if partly or not isinstance(asked, list) else tuple(asked)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _base(config: Config) -> str | None:
    """The class of the base model, where the config has it."""
    mapping = config.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return name if isinstance(name, str) else None
