"""What a step drew, sample by sample, and what follows from it: the records between scheduler, watchers and loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.request import RowError
from umbel.ir.step import StepResult
from umbel.ir.token_masks import DrawMasks

Ints = NDArray[np.int64]
TokenIds = NDArray[np.int32]


@dataclass(frozen=True)
class Drawing:
    """The samples that draw in a step which is under way (`[samples]`), in the order of its draws.

    `slots`: where the scheduler keeps them; `ranks`: which samples they are, as a slot may be another's once the step
    is done; `rows`; `before`: tokens that each has generated before these draws; `limits`: tokens that each may
    generate. Sample i has the draws `begin[i]:begin[i + 1]` of the step, one or more, a position after the other.
    `proposed` (`[draws]`): the tokens that stood in the places of draws and were computed as if they had been drawn,
    below 0 for the last draw of each sample, which nothing was computed behind; None where no token was proposed.
    """

    slots: Ints
    ranks: Ints
    rows: Ints
    before: Ints
    limits: Ints
    begin: Ints
    proposed: Ints | None = None

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def single(self) -> bool:
        """Whether each sample draws once, which nearly all steps are like."""
        return self.begin.item(-1) == len(self)

    @property
    def counts(self) -> Ints:
        """Draws of each sample (`[samples]`)."""
        return self.begin[1:] - self.begin[:-1]

    @cached_property
    def owner(self) -> Ints:
        """The sample that each draw is of (`[draws]`)."""
        return self.begin[:-1] if self.single else np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def places(self) -> Ints:
        """Where in its sample's answer each draw stands, the first token being at 0 (`[draws]`)."""
        if self.single:
            return self.before
        owner = self.owner
        return self.before[owner] + np.arange(len(owner)) - self.begin[owner]

    def only(self, which: NDArray[np.bool_]) -> Drawing:
        """Keep some of the samples (`[samples]`)."""
        begin = np.append(0, np.cumsum(self.counts[which]))
        slots, ranks, rows = self.slots[which], self.ranks[which], self.rows[which]
        proposed = None if self.proposed is None else self.proposed[which[self.owner]]
        return Drawing(slots, ranks, rows, self.before[which], self.limits[which], begin, proposed)


@dataclass(frozen=True)
class SampledTokens:
    """The draws of a step that is done, and whose they are: sample i drew `tokens[begin[i]:begin[i + 1]]`.

    `masks` says which tokens could be drawn; None where each could be.
    """

    drawing: Drawing
    result: StepResult
    masks: DrawMasks | None = None

    @property
    def tokens(self) -> Ints:
        """Sampled ids (`[draws]`)."""
        return self.result.token_ids

    @cached_property
    def accepted(self) -> Ints:
        """Proposed tokens of each sample that were drawn, up to the first that was not (`[samples]`)."""
        begin, proposed = self.drawing.begin[:-1], self.drawing.proposed
        if proposed is None:
            return np.zeros_like(begin)
        unequal = np.flatnonzero(self.tokens != proposed)  # the last draw of each sample at least
        return unequal[np.searchsorted(unequal, begin)] - begin

    def left_nothing(self, draw: int) -> bool:
        """Whether no token could be drawn, as the draw's mask was empty."""
        masks = self.masks
        return masks is not None and masks.mask[draw] >= 0 and not masks.masks[masks.mask[draw]].any()

    def only(self, which: NDArray[np.bool_]) -> SampledTokens:
        """Keep what some of the samples drew (`[samples]`)."""
        draws, masks = which[self.drawing.owner], self.masks
        if masks is not None:
            masks = DrawMasks(masks.mask[draws], masks.masks)
        return SampledTokens(self.drawing.only(which), self.result.only(draws), masks)


@dataclass(slots=True)
class Finish:
    """How a sample ended: the `reason` ("stop", "length" or "repetition"), the string or id that `stop` is, its `text`
    where that is known already, and its `logprobs` or its `vector` where its row asked for them."""

    reason: str
    stop: str | int | None = None
    text: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    vector: tuple[float, ...] | None = None


@dataclass(slots=True)
class Outcomes:
    """What watchers make of sampled tokens.

    `keep` (`[samples]`): how many of each sample's tokens count, up to the first that differs from the one proposed in
    its place; watchers only lower it. `finished`: how samples ended,
    by their index, with the last of the tokens kept. `failed`: rows to abandon, with an error.
    """

    keep: Ints
    finished: dict[int, Finish] = field(default_factory=dict)
    failed: dict[int, RowError] = field(default_factory=dict)

    @classmethod
    def of(cls, sampled: SampledTokens) -> Outcomes:
        """Every sample goes on, with all draws that decoding one by one would give too: those before which everything
        that was proposed was drawn in its place. They have the same tokens before them, and the same noise."""
        return cls(sampled.drawing.counts if sampled.drawing.proposed is None else sampled.accepted + 1)

    def end(self, sample: int, keep: int, finish: Finish) -> None:
        """The sample ends with the last of its first `keep` tokens."""
        self.keep[sample] = keep
        self.finished[sample] = finish

    def fail(self, sample: int, row: int, error: RowError) -> None:
        """None of the sample's tokens counts, and its row cannot be answered."""
        self.keep[sample] = 0
        self.failed.setdefault(row, error)


@dataclass(frozen=True, slots=True)
class Ended:
    """A sample that is done: its tokens and why; `text` is None where it is to be decoded from all of them."""

    row: int
    sample: int
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_reason: str | int | None
    text: str | None
    logprobs: tuple[TokenLogprobs, ...] | None
    vector: tuple[float, ...] | None = None
