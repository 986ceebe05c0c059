"""What the planner decided for a workload, why, and what it expects to happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Fact = int | float | str


def _no_facts() -> Mapping[str, Fact]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice of the planner.

    `why`: the reason, with the names of `facts` in braces where their values are to be read.
    `alternatives`: what else could have been chosen (name, expected seconds).
    `facts`: the numbers that the choice rests on, by name.
    """

    name: str
    value: int | str
    why: str
    alternatives: tuple[tuple[str, float], ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=_no_facts)

    @property
    def reason(self) -> str:
        """The reason as a sentence."""
        return self.why.format(**self.facts) if self.facts else self.why


@dataclass(frozen=True, slots=True)
class Refusal:
    """A technique that is not used.

    `seconds`: what using it would add (negative: save), None if unknown.
    `why`, `facts`: the reason, as in Decision.
    """

    technique: str
    seconds: float | None
    why: str
    facts: Mapping[str, Fact] = field(default_factory=_no_facts)

    @property
    def reason(self) -> str:
        """The reason as a sentence."""
        return self.why.format(**self.facts) if self.facts else self.why


@dataclass(frozen=True, slots=True)
class Curve:
    """How a run is expected to go, one entry per stretch of steps (`[stretches]`), for pictures and reports.

    `steps`, `seconds`: since the start, at the stretch's end.
    `tokens`: tokens computed per step.
    `running`: samples that run in each step.
    `kv_tokens`: tokens held in the pool, in whole pages.
    """

    steps: Floats
    seconds: Floats
    tokens: Floats
    running: Floats
    kv_tokens: Floats

    @classmethod
    def flat(cls) -> Curve:
        """The curve of a run without steps."""
        none = np.zeros(0)
        return cls(none, none, none, none, none)


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

    `samples`: completions (a row with n = 4 has four).
    `computed_prompt_tokens`: the forest's distinct tokens.
    `output_tokens`: by the assumed lengths of the plan; `output_range` is their interval.
    `kv_peak_tokens`: the most that the KV pool holds at a time, in whole pages.
    `seconds`: (low, expected, high) of running.
    `saved_seconds`: how much of it sharing prefixes saves.
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
    curve: Curve
    output_range: tuple[int, int]  # output tokens of all rows, low and high

    @classmethod
    def none(cls) -> Estimates:
        """No rows, nothing expected."""
        return cls(0, 0, 0, 0, 0, 0, 0, 0, (0.0, 0.0, 0.0), 0.0, (), Curve.flat(), (0, 0))

    @property
    def saved_prompt_tokens(self) -> int:
        """Prompt tokens that need no computing because another row computes them."""
        return self.prompt_tokens - self.computed_prompt_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """How a workload is run.

    `forest`, `order`: its prompts as a forest, and the order of its rows.
    `chunk`: the most tokens that a step computes.
    `kv_tokens`, `page_size`: the size of the KV pool and of its pages, in tokens.
    `lengths`: `[rows]`, output tokens assumed per sample.
    `groups`: `[rows]`, rows of one group are expected to have answers of similar length.
    `templates`: the groups' names (a digest of the common beginning; "" for rows without one).
    `same_as`: `[rows]`, the row whose answer a row gets: itself, or an identical one.
    `admission`: the rule by which rows may start.
    `decisions`, `refusals`: the reason of each choice, and what was not chosen.
    `lossy`: techniques in use that may change answers.
    `speculate`: who proposes tokens that steps check; "off" where no tokens are proposed.
    `notes`: texts for the user: what of the model is not obeyed, or is worth knowing.
    `step_cost`: prompt tokens that take as long to compute as a step of one sample.
    `has_states`: whether pages hold a state beside keys and values.
    """

    forest: Forest
    order: Ints
    chunk: int
    kv_tokens: int
    page_size: int
    lengths: Ints
    groups: Ints
    templates: tuple[str, ...]
    same_as: Ints
    admission: str
    decisions: tuple[Decision, ...]
    refusals: tuple[Refusal, ...]
    estimates: Estimates
    lossy: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    speculate: str = "off"
    step_cost: float = 0.0
    has_states: bool = False

    @property
    def exact(self) -> bool:
        """Whether the answers are those of one plain request at a time: nothing that was taken may change them."""
        return not self.lossy

    @property
    def kv_pages(self) -> int:
        """The number of pages of the KV pool."""
        return max(1, self.kv_tokens // self.page_size)

    def decision(self, name: str) -> Decision:
        """The decision of that name; raises KeyError when no pass took it."""
        for decision in self.decisions:
            if decision.name == name:
                return decision
        raise KeyError(name)
