"""What the user asked of the engine: one frozen record; an unknown key is an error that names the nearest one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from umbel import registry
from umbel.errors import UsageError, nearest
from umbel.foreign import understood
from umbel.technique import OPTIONS

PAGE_SIZE = 16
DTYPES = ("auto", "float32", "bfloat16")
LOAD_FORMATS = ("auto", "safetensors", "dummy")
MODEL_IMPLS = ("auto", "native", "transformers")
GENERATION_CONFIGS = ("auto", "vllm", "none")
DECIDED_HERE = ("dtype", "attention_backend", "device", "kernels", "model_impl", "torch")  # parts of an identity
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"dtype": DTYPES, "load_format": LOAD_FORMATS, "model_impl": MODEL_IMPLS, "generation_config": GENERATION_CONFIGS}
)


def choices(option: str) -> tuple[str, ...]:
    """What an option that has a list of values may be; those that name techniques are the catalogue's."""
    return registry.values(option) if option in OPTIONS.values() else CHOICES[option]


def readable(name: Path | str) -> str:
    """A file's name as text that can be stored and printed, whatever the system takes names for: its bytes as UTF-8,
    those that are none by number."""
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Engine settings as asked; None means that the plan derives the value and says why.

    `kv_tokens` is the size of the KV pool in tokens, `chunk` the most tokens one step computes, `page_size` the tokens
    of a KV page, `seed` the one that rows without their own are sampled with. `prefix`, `admission` and
    `attention_backend` name techniques, `skip` passes of the planner to leave out; answers do not depend on them.
    `linear` is what the layers' products are made in, `kv_cache_dtype` what keys and values are kept in; what is not
    the default needs `allow_lossy`, which lets techniques be used that may change answers. `tensor_parallel_size`
    devices, or processes of a CPU, hold a part of each layer; `data_parallel_size` of them the whole model each, for a
    part of the rows. `watchers` of other packages look at what samples draw, behind the built-in ones.
    `keep` says which prompts stay cached that no running sample reads; by itself ("auto") a job gives them up with
    their last reader, and a session keeps them until their pages are wanted. `speculate` names who proposes tokens,
    several of which a step can check; answers do not depend on it. `model_impl` says who computes the layers: "native"
    ours, "transformers" that library's module with our attention and KV, "auto" ours where they know the model.
    `lora` are adapters that rows may name, each as NAME=DIRECTORY; an object of directories by name will do.
    `technique` are those that say what attention reads or forgets, each as NAME:setting=value (docs/selecting.md).
    `generation_config` says whether the model's generation_config.json has defaults for what rows leave open: "auto" as
    in vLLM, "vllm" and "none" leave it out. `executor` says where replicas run: "local" on this machine, "ray" on the
    cluster at `ray_address`; with `mixed_replicas` on several kinds of machines, whose last bits may differ. `kv_dir`
    is a folder of at most `kv_dir_gib` GiB for the KV of prompts, which later jobs read instead of computing it.
    """

    model: str
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    kv_tokens: int | None = None
    chunk: int | None = None
    page_size: int = PAGE_SIZE
    seed: int = 0
    load_format: str = "auto"
    prefix: str = "forest"
    admission: str = "past-future"
    skip: tuple[str, ...] = ()
    linear: str = "dense"
    kv_cache_dtype: str = "auto"
    attention_backend: str = "auto"
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    allow_lossy: bool = False
    watchers: tuple[str, ...] = ()
    keep: str = "auto"
    speculate: str = "auto"
    model_impl: str = "auto"
    generation_config: str = "auto"
    executor: str = "local"
    ray_address: str | None = None
    mixed_replicas: bool = False
    lora: Mapping[str, str] | tuple[str, ...] = ()
    technique: tuple[str, ...] = ()
    kv_dir: str | None = None
    kv_dir_gib: float = 10.0

    def __post_init__(self) -> None:
        for name in ("skip", "watchers", "lora", "technique"):
            if isinstance(several := getattr(self, name), list):  # as JSON has them, for the other ranks
                object.__setattr__(self, name, tuple(several))
        object.__setattr__(self, "technique", (self.technique,) if isinstance(self.technique, str) else self.technique)
        for name in (*CHOICES, *OPTIONS.values()):
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                _check_choice(name, one)
        for name in ("threads", "kv_tokens", "chunk", "page_size", "tensor_parallel_size", "data_parallel_size"):
            if (value := getattr(self, name)) is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name}={value!r}: must be a whole number of at least 1")
        _check_executor(self)
        registry.check_together("technique", self.technique)
        if self.technique and self.tensor_parallel_size > 1:
            raise UsageError(f"technique={self.technique[0]!r}: not with tensor_parallel_size > 1; use replicas")
        for asked in self.lossy if not self.allow_lossy else ():
            raise UsageError(f"{asked} may change answers: allow_lossy (--allow-lossy) says that it may")

    @property
    def replicated(self) -> bool:
        """Whether the rows are answered by replicas in processes of their own."""
        return self.data_parallel_size > 1 or self.executor != "local"

    @property
    def lossy(self) -> tuple[str, ...]:
        """What was asked for that may change answers, by the catalogue."""
        mixed = ("mixed_replicas=True",) * self.mixed_replicas
        taken = [row for row in registry.lossy(self) if row.option[0] != "technique"]
        selecting = (f"technique={asked!r}" for asked in self.technique if registry.is_lossy("technique", asked))
        return (*("{}={!r}".format(*row.option) for row in taken), *selecting, *mixed)

    @property
    def identity(self) -> dict[str, str | int]:
        """What decides the bytes of answers: settings as asked, and what the machine decides as "auto" (DECIDED_HERE),
        until engine.arithmetic says what that is; and any other choice that is lossy by the catalogue. Everything else
        changes only how fast they come."""
        chosen = {
            "dtype": self.dtype,
            "attention_backend": self.attention_backend,
            **dict.fromkeys(("device", "kernels", "model_impl", "torch"), "auto"),
            "linear": self.linear,
            "kv_cache_dtype": self.kv_cache_dtype,
            "tensor_parallel_size": self.tensor_parallel_size,
            "load_format": "dummy" if self.load_format == "dummy" else "safetensors",
            "seed": self.seed,
            **({"watchers": ", ".join(self.watchers)} if self.watchers else {}),
            **({"technique": "; ".join(self.technique)} if self.technique else {}),
        }
        lossy = {name: value.strip("'") for name, _, value in (asked.partition("=") for asked in self.lossy)}
        return {**lossy, **chosen}

    @property
    def cost_key(self) -> str:
        """The settings that change how long a step takes: the dtype, what is lossy, attention by name."""
        named = () if self.attention_backend == "auto" else (f"attention_backend={self.attention_backend!r}",)
        return ", ".join((self.dtype, *self.lossy, *named))

    @classmethod
    def of(cls, model: str, **options: Any) -> EngineConfig:
        """Build from keyword options, ours or vLLM's; raises UsageError on an unknown one, with the nearest name."""
        known = {f.name: f.default for f in fields(cls)}
        options = understood(model, options, known)
        for name in options.keys() - known.keys():
            raise UsageError(f"unknown option {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        return cls(model, **options)


def _check_executor(config: EngineConfig) -> None:
    """Raise UsageError for what only the cluster takes."""
    for name in ("ray_address", "mixed_replicas"):
        if (value := getattr(config, name)) and config.executor != "ray":
            raise UsageError(f"{name}={value!r} with executor={config.executor!r}: it is for executor=ray")


def _check_choice(option: str, value: object) -> None:
    """Raise UsageError for a value that an option does not have."""
    known = value in CHOICES[option] if option in CHOICES else registry.takes(option, value)
    if not known and (why := registry.why_off(option, value)):
        raise UsageError(f"{option}={value!r} is off: it {why}")
    if not known:
        allowed = choices(option) or ("none, as no package brings one",)
        raise UsageError(f"{option}={value!r}: must be one of {', '.join(allowed)}{nearest(str(value), allowed)}")
