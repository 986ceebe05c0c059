"""What the planner decided for a workload, why, and what it expects to happen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice: its name, the value, the reason, and what the alternatives would cost (name, expected seconds)."""

    name: str
    value: int | str
    reason: str
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """The forest's nodes at one depth: `tokens` computed there once, which `rows` share, and tokens `saved` by that."""

    nodes: int
    tokens: int
    rows: int
    saved: int


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the plan expects.

    `samples` are completions (a row with n = 4 has four). `computed_prompt_tokens` are the forest's distinct tokens.
    `output_tokens` rest on the assumed lengths of the plan. `kv_peak_tokens` is the most the KV pool holds at a time,
    in whole pages. `seconds` is (low, expected, high) of running; `saved_seconds` what sharing prefixes is worth of it.
    """

    rows: int
    samples: int
    duplicate_rows: int
    prompt_tokens: int
    computed_prompt_tokens: int
    output_tokens: int
    kv_peak_tokens: int
    steps: int
    seconds: tuple[float, float, float]
    saved_seconds: float
    levels: tuple[Level, ...]

    @property
    def saved_prompt_tokens(self) -> int:
        """Prompt tokens that need no computing because another row computes them."""
        return self.prompt_tokens - self.computed_prompt_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """How a workload is run: its forest, the `order` of its rows, tokens per step (`chunk`), the KV pool's size.

    `lengths` (`[rows]`) are the output tokens assumed per sample. `decisions` say why, one per choice.
    """

    forest: Forest
    order: Ints
    chunk: int
    kv_tokens: int
    page_size: int
    lengths: Ints
    decisions: tuple[Decision, ...]
    estimates: Estimates

    def decision(self, name: str) -> Decision:
        """The decision of that name; raises KeyError when no pass took it."""
        for decision in self.decisions:
            if decision.name == name:
                return decision
        raise KeyError(name)
