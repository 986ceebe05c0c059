"""The seam of drafters: what proposes the next tokens of running samples, and the rule of how many are asked for.

A step checks proposed tokens and draws behind each of them; what it draws there is what it would have drawn without
them, so that a proposal counts where it equals the draw and costs nothing but its row of the step where it does not
(speculative decoding, arXiv 2211.17192, with draws that are keyed by place). Answers never depend on a drafter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.draft_law import DraftLaw
from umbel.cost.drafts import Offers

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
TokenIds = NDArray[np.int32]

MOST = 4  # tokens that are asked for where nothing says how many pay


@dataclass(frozen=True, slots=True)
class Drafts:
    """Proposed tokens of some samples: those of sample i are `tokens[begin[i]:begin[i + 1]]`, none or several.
    `likely` says of each how likely it is to come true once those before it have (None: not known)."""

    tokens: Ints
    begin: Ints
    likely: Floats | None = None

    @classmethod
    def of(cls, each: Sequence[Sequence[int]]) -> Drafts:
        """From a list for each sample."""
        tokens = [token for drafts in each for token in drafts]
        return cls(np.array(tokens, np.int64), np.cumsum([0, *map(len, each)]))

    def among(self, which: Ints, samples: int) -> Drafts:
        """The same as those of samples `which` (ascending) among so many."""
        counts = np.zeros(samples, np.int64)
        counts[which] = self.counts
        return Drafts(self.tokens, np.append(0, np.cumsum(counts)), self.likely)

    @property
    def counts(self) -> Ints:
        """Tokens proposed for each sample (`[samples]`)."""
        return self.begin[1:] - self.begin[:-1]


class Kept(Protocol):
    """What a drafter keeps for those of later loops; it takes `kv_bytes` of memory as it is used."""

    kv_bytes: int


@dataclass(frozen=True, slots=True)
class Setting:
    """What a drafter is made with: the number of tokens in the model's vocabulary (None: not known), the most tokens
    that its context holds, what follows the colon of the option's value ("model:PATH") or "", the settings of the
    engine and its tokenizer (a text.tokenizer.Tokenizer; None: there is none, as in a simulation), and what drafters
    have `kept` for those of later loops, by their arguments."""

    width: int | None = None
    context: int = 1 << 40
    argument: str = ""
    config: EngineConfig | None = None
    tokenizer: object | None = None
    kept: dict[str, Kept] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DrawRule:
    """How a sample draws its tokens: fields as in ir.step.Sampling, `stream` and `sample` of what keys its noise."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stream: int = 0
    sample: int = 0


class Drafter(Protocol):
    """Proposes tokens for many samples at once. One that draws them itself may have a method `draw_as(rank, rule)`,
    which is called behind `start`: tokens that it draws by the same noise come true more often.

    A sample is known by its rank, a number that no other sample gets; those of forked and resumed rows are new ones,
    which are started with all the tokens that they have. Calls for a sample come in this order: `start`, then `extend`
    and `propose` as often as its tokens grow, then `end`. `extend` gives the tokens that count, each once and in
    order: before `propose` all that a sample has, and of one that nothing is asked for maybe only at its end. Samples
    that are preempted and computed again are as any others.
    """

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """A sample of a row, whose prompt this is, as a view that stays as it is. Samples of rows of one `group` answer
        alike: their prompts come from the same template."""

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Samples have further tokens: sample `ranks[i]` has `tokens[begin[i]:begin[i + 1]]`, one or more, behind those
        that it had. The arrays may be written to after the call."""

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """The next tokens of some samples as they may come, at most `most[i]` (1 or more) for sample `ranks[i]`; none
        where nothing is likely. Only ids of the vocabulary."""
        ...

    def end(self, rank: int, *, done: bool) -> None:
        """The sample is gone: `done` with its answer, all tokens of which came by `extend`, or abandoned."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """The samples that decode in a step, in the order of their ranks (`[samples]`): their `ranks`, the `groups` of
    their rows, the tokens that each has generated (`places`) and has before its next one in all (`context`).
    `step_tokens` is what the step computes without drafts, theirs and of prompts."""

    ranks: Ints
    groups: Ints
    places: Ints
    context: Ints
    step_tokens: int


class Depth(Protocol):
    """The rule of how many tokens are asked of a drafter."""

    def most(self, decoding: Decoding) -> Ints:
        """The most tokens to propose for each sample in this step (`[samples]`), 0 where none pays for its row. The
        next tokens of a sample with 1 or more wait until its last ones are known, where the runner works ahead."""
        ...

    def keep(self, which: Ints, drafts: Drafts) -> Ints:
        """How many of the first tokens of each draft to check (`[samples]`); `drafts` are those of samples
        `which`, ascending, of those that `most` was asked of last."""
        ...

    def learn(self, ranks: Ints, groups: Ints, drafted: Ints, accepted: Ints) -> None:
        """Of the tokens that were `drafted` for these samples in a step that is done, the first `accepted` came true
        (`[samples]`, 1 or more drafted); `groups` are those of their rows."""

    def bank(self) -> Mapping[int, Offers]:
        """What was proposed since the last time, by group of rows, where it keeps account of that."""
        ...

    def laws(self) -> Mapping[int, DraftLaw]:
        """What came true since the last time by place in a draft, by group of rows, where it keeps account of that."""
        ...


class Constant:
    """A rule that asks for the same number of tokens always."""

    def __init__(self, most: int):
        self._most = most

    def most(self, decoding: Decoding) -> Ints:
        """The same for every sample."""
        return np.full(len(decoding.ranks), self._most)

    def keep(self, which: Ints, drafts: Drafts) -> Ints:
        """All of them."""
        return drafts.counts

    def learn(self, ranks: Ints, groups: Ints, drafted: Ints, accepted: Ints) -> None:
        """There is nothing to learn."""

    def bank(self) -> Mapping[int, Offers]:
        """It keeps no account."""
        return {}

    def laws(self) -> Mapping[int, DraftLaw]:
        """It keeps no account."""
        return {}
