"""The engines that `--engines` can name: which script runs them, with which settings, in which environment."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from umbel.errors import UsageError, nearest

ADAPTERS = Path(__file__).parent / "adapters"
SORTED = "-sorted"
PRELOAD = ("libtcmalloc_minimal.so.4", "libiomp5.so")  # where an engine gains by them and its environment has them


@dataclass(frozen=True, slots=True)
class Base:
    """One engine as the harness knows it.

    `settings`: the best that are known.
    `warm_every`: n warms up with every n-th row of each workload (all of them where something is compiled or cached at
        first use).
    `forgets`: no prefix outlives a run.
    """

    script: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    warm_every: int = 1
    forgets: bool = True
    preload: bool = False
    own_python: bool = True


_HF = {"attention": "sdpa"}
_HF_CONTINUOUS = {"mode": "continuous", "page_size": 32, "num_blocks": 768, "max_batch_tokens": 2048}

BASES: Mapping[str, Base] = MappingProxyType(
    {
        "umbel": Base("run_umbel.py", "Umbel, through its Python API", own_python=False),
        "vllm": Base(
            "run_vllm.py",
            "vLLM, prefix caching on, compiled",
            {"block_size": 32, "max_num_seqs": 256, "max_num_batched_tokens": 4096, "kv_gib": 6},
            preload=True,
        ),
        "llama-cpp": Base(
            "run_llama_cpp.py",
            "llama.cpp's library, batches and shared prefixes scheduled by hand",
            {"sequences": 256, "cells": 16384, "batch": 2048, "ubatch": 512, "kv": "f16"},
            warm_every=8,
        ),
        "openvino": Base(
            "run_openvino.py",
            "OpenVINO GenAI, continuous batching with prefix caching",
            {"cache_size": 4, "max_num_batched_tokens": 2048, "max_num_seqs": 256},
            warm_every=4,
            forgets=False,
        ),
        "hf-static": Base(
            "run_transformers.py",
            "transformers, padded batches",
            {"mode": "static", "batch": 32, "cells": 49152, **_HF},
            warm_every=16,
            own_python=False,
        ),
        "hf-continuous": Base(
            "run_transformers.py",
            "transformers, continuous batching",
            {**_HF_CONTINUOUS, **_HF},
            warm_every=16,
            own_python=False,
        ),
    }
)
ORACLE = Base(
    "run_transformers.py",
    "transformers, one request at a time, float32",
    {"mode": "single", "attention": "sdpa", "dtype": "float32"},
    own_python=False,
)
CEILINGS = Base("run_ceilings.py", "how fast the machine is now", own_python=False)


@dataclass(frozen=True, slots=True)
class Contestant:
    """An engine with its settings, plain or with its prompts sorted first."""

    name: str
    key: str  # of its base in BASES
    base: Base
    settings: Mapping[str, Any]
    is_sorted: bool = False

    @property
    def process(self) -> str:
        """The name of the process it runs in: one serves both variants of an engine that forgets between runs."""
        return self.name.replace(SORTED, "", 1) if self.base.forgets else self.name


def parse_engine(text: str) -> Contestant:
    """An engine as asked for: NAME, NAME-sorted, NAME:setting=value+setting=value.

    Raises UsageError for a name that is not known, or a setting without a value.
    """
    name, _, asked = text.partition(":")
    key = name.removesuffix(SORTED)
    if key not in BASES:
        raise UsageError(f"--engines {text}: no engine {key!r}{nearest(key, BASES)}; known: {', '.join(BASES)}")
    base = BASES[key]
    pairs = [pair.partition("=") for pair in asked.split("+") if pair]
    if any(not value for _, _, value in pairs):
        raise UsageError(f"--engines {text}: settings are name=value, joined by +")
    settings = {**base.settings, **{name: _value(value) for name, _, value in pairs}}
    return Contestant(text, key, base, settings, name.endswith(SORTED))


def _value(text: str) -> Any:
    """true, false, a number, or else the text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def python_for(engine: Contestant, peers: Mapping[str, str]) -> str:
    """The interpreter of its environment. Raises UsageError when it needs one of its own and none is given."""
    found = peers.get(engine.key)
    if found is None and engine.base.own_python:
        raise UsageError(f"{engine.key}: has no environment; give its interpreter with --peer {engine.key}=PYTHON")
    if found is not None and not os.access(found, os.X_OK):
        raise UsageError(f"{engine.key}: {found} is not an interpreter that can be run")
    return found or sys.executable


def environment(base: Base, python: str, threads: int) -> dict[str, str]:
    """Variables of an engine's process: threads, no network, and the faster allocator where it is available."""
    found = dict(os.environ)
    if python != sys.executable:
        for name in ("PYTHONPATH", "VIRTUAL_ENV"):
            found.pop(name, None)  # ours are not for other environments
    found |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    found |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    libraries = preloads(python) if base.preload else []
    if libraries:
        found["LD_PRELOAD"] = ":".join(libraries)
    return found


def preloads(python: str) -> list[str]:
    """Libraries of PRELOAD in the environment's lib folder or the system's."""
    folders = [Path(python).parent.parent / "lib", Path(f"/usr/lib/{platform.machine()}-linux-gnu"), Path("/usr/lib64")]
    found = [next((folder / name for folder in folders if (folder / name).exists()), None) for name in PRELOAD]
    return [str(path) for path in found if path is not None]
