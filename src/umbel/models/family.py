"""What a family of models is: a row of data, with small functions where config.json must be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from umbel.ir.experts import Experts
from umbel.ir.layer import Layer
from umbel.models.config_file import Config
from umbel.models.stored import AS_LLAMA, Stored


@dataclass(frozen=True, slots=True)
class Family:
    """How one `model_type` is read.

    `architecture`: the class in transformers. `obeyed`: the keys of config.json that it reads beside those that all
    families read (`known_keys.OBEYED`). `layer`: what a layer computes, without its window and its rotary settings.
    `window` says when `sliding_window` counts: "never", "always", as `use_sliding_window` "asks", or so for "all"
    layers. `stored`: names in checkpoints. `experts` reads what they are. The others hold where the config has no such
    key.
    """

    architecture: str
    obeyed: frozenset[str]
    layer: Callable[[Config], Layer]
    window: Literal["never", "always", "asks", "all"] = "never"
    stored: Stored = AS_LLAMA
    head_dim: int | None = None
    bos: int | None = None
    eos: int | None = None
    window_size: int | None = 4096
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    experts: Callable[[Config, int], Experts | None] | None = None
