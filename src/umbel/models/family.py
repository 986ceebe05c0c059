"""What a family of models is: a row of data, with small functions where config.json must be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from umbel.ir.experts import Experts
from umbel.ir.layer import NO_EDGES, Edges, Layer
from umbel.ir.recurrence import Recurrence
from umbel.models.config_file import Config, size_of
from umbel.models.stored import AS_LLAMA, Stored


def no_edges(config: Config) -> Edges:
    """Nothing but an embedding, a norm and a head."""
    return NO_EDGES


def stated_width(config: Config) -> int:
    """The inner units of an MLP, as most configs say it."""
    return size_of(config, "intermediate_size")


@dataclass(frozen=True, slots=True)
class Family:
    """How one `model_type` is read.

    `architecture`: the class in transformers. `obeyed`: the keys of config.json that it reads beside those that all
    families read (`known_keys.OBEYED`); `refused`: keys with the values that say nothing, others are an error.
    `names`: what it calls keys that others call as Llama does. `defaults`: what keys mean that are missing;
    `derive`: those that follow from others, by Llama's names.
    `layer`: what a layer computes, without its window and its rotary settings; `vary`: how single layers differ.
    `recurrent`: what `layer_types` calls layers that have a recurrence in the place of attention; `recurrence`: which.
    `width`: the inner units of an MLP. `edges`: what stands around the layers. `stored`: names in checkpoints.
    `experts` reads what they are.

    `window` says when `sliding_window` counts: "never", "always", as `use_sliding_window` "asks", or so for "all"
    layers, or in the layers whose `layer_types` say so ("typed"), where that key is missing in all but every
    `every_full`-th. `thetas`: rotary bases by the kind of attention, each with its key and its default; empty: all
    layers have one. `rotary_share`: of a head's numbers that turn where the config has no such key, None: always all.
    `rope_names`: other names of rotary kinds. The others hold where the config has no such key.
    """

    architecture: str
    obeyed: frozenset[str]
    layer: Callable[[Config], Layer]
    window: Literal["never", "always", "asks", "all", "typed"] = "never"
    stored: Stored = AS_LLAMA
    head_dim: int | None = None
    bos: int | None = None
    eos: int | None = None
    window_size: int | None = 4096
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    experts: Callable[[Config, int], Experts | None] | None = None
    recurrent: str = ""
    recurrence: Callable[[Config], Recurrence] | None = None
    width: Callable[[Config], int] = stated_width
    edges: Callable[[Config], Edges] = no_edges
    vary: Callable[[Config, tuple[Layer, ...]], tuple[Layer, ...]] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    derive: Callable[[Config], Mapping[str, object]] | None = None
    refused: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    every_full: int = 0
    thetas: Mapping[str, tuple[str | None, float]] = field(default_factory=dict)
    rotary_share: float | None = None
    rope_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """Keys of config.json that mean something beside those that all families read."""
        return self.obeyed.union(self.refused, self.names.values())
