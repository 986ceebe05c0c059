"""All watchers of a loop, in order; each sees the samples of the rows that it watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.catalog import CATALOG
from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.columns import Growable
from umbel.ir.distinct import Distinct
from umbel.ir.logit_changes import LogitChanges, join_changes
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens, TokenIds
from umbel.ir.token_masks import DrawMasks
from umbel.spec.base import Drafts

Flags = NDArray[np.bool_]
Make = Callable[[Surroundings], Watcher]


def known_watchers(asked: Sequence[str] = ()) -> list[Make]:
    """The built-in watchers in the order of the catalogue, then those of other packages that were asked for by name: a
    later one sees what earlier ones leave. Raises UsageError where one of these is broken."""
    always = (row.name for row in CATALOG if row.family == "watcher")
    return [registry.kind("watcher", name) for name in (*always, *asked)]


class Watchers(Growable):
    """Asks the watchers in the order in which they are given; at most 63."""

    _FILLS: ClassVar[dict[str, float]] = {"_watched": 0}
    _watched: Ints  # [rows] bit i: watcher i watches the row

    def __init__(self, watchers: Sequence[Watcher]):
        super().__init__()
        self._bits = {1 << place: watcher for place, watcher in enumerate(watchers)}
        self._lockstep = sum(bit for bit, watcher in self._bits.items() if watcher.lockstep)
        self._masking = sum(bit for bit, watcher in self._bits.items() if watcher.masking)
        self._forcing = sum(bit for bit, watcher in self._bits.items() if watcher.forcing)
        self._changing = sum(bit for bit, watcher in self._bits.items() if watcher.changing)
        self._naming = sum(bit for bit, watcher in self._bits.items() if watcher.naming)
        self._pooling = sum(bit for bit, watcher in self._bits.items() if watcher.pooling)
        self._used, self._common = 0, -1  # bits that any row has, and that all have

    def extend(self, params: Sequence[SamplingParams]) -> Flags:
        """More rows, behind those that are there; for each whether it is watched in lockstep (`[rows]`)."""
        distinct = Distinct.of(params)
        watched = distinct.column(lambda p: sum(bit for bit, watcher in self._bits.items() if watcher.watches(p)))
        self._used |= int(np.bitwise_or.reduce(watched, initial=0))
        self._common &= int(np.bitwise_and.reduce(watched, initial=-1))
        self._grow(len(params), _watched=watched)
        for bit, watcher in self._bits.items():
            if bit & self._used & self._masking:
                watcher.meet([p for p in distinct.objects if watcher.watches(p)])
        return np.asarray(watched & self._lockstep != 0)

    def fork(self, rank: int, row: int, ranks: Sequence[int], tokens: TokenIds) -> None:
        """More rows, watched as one that is there: one for each of `ranks`, whose sample goes on from that of `rank`
        and has its `tokens`."""
        rows, logprobs = range(self.used, self.used + len(ranks)), self.collected(rank)
        self._grow(len(ranks), _watched=self._watched.item(row))
        for child_rank, child in zip(ranks, rows, strict=True):
            self.adopt(child_rank, child, tokens, logprobs)

    def masks(self, drawing: Drawing) -> DrawMasks | None:
        """The tokens that the draws of a step may give, where any watcher says so."""
        found: DrawMasks | None = None
        if not self._used & self._masking:
            return None
        for bit, watcher in self._bits.items():
            if not bit & self._used & self._masking:
                continue
            which = self._samples_of(bit, drawing)
            masks = watcher.masks(drawing, which) if len(which) else None
            if masks is not None:
                found = masks if found is None else found.both(masks)
        return found

    def forced(self, ranks: Ints, rows: Ints, most: Ints) -> Drafts | None:
        """The tokens that samples have to give next, at most so many of each; None where no watcher knows of any."""
        for bit, watcher in self._bits.items():
            if bit & self._used & self._forcing:
                which = np.flatnonzero(self._watched[rows] & bit)
                if len(which) and (found := watcher.forced(ranks[which], rows[which], most[which])) is not None:
                    return found.among(which, len(ranks))
        return None

    def changes(self, drawing: Drawing) -> LogitChanges | None:
        """What becomes of the logits of a step's draws, where any watcher changes some."""
        if not self._used & self._changing:
            return None
        found = list[LogitChanges]()
        for bit, watcher in self._bits.items():
            if bit & self._used & self._changing and len(which := self._samples_of(bit, drawing)):
                changes = watcher.changes(drawing, which)
                found += [] if changes is None else [changes]
        return join_changes(found)

    def named(self, drawing: Drawing) -> Ints | None:
        """The tokens whose log-probabilities the draws of a step want (`[draws, most]`), -1 for none; None where all
        are content with the most likely ones."""
        if bit := self._used & self._naming:
            which = self._samples_of(bit, drawing)
            return self._bits[bit].named(drawing, which) if len(which) else None
        return None

    def pooled(self, drawing: Drawing) -> Ints | None:
        """The draws of a step that are to give vectors, each the last of its sample; None where none is."""
        if bit := self._used & self._pooling:
            which = self._samples_of(bit, drawing)
            return drawing.begin[which + 1] - 1 if len(which) else None
        return None

    def judge(self, sampled: SampledTokens) -> Outcomes:
        """What follows from the tokens of a step."""
        outcomes, drawing = Outcomes.of(sampled), sampled.drawing
        for bit, watcher in self._bits.items():
            if bit & self._used and len(which := self._samples_of(bit, drawing)):
                watcher.look(sampled, which, outcomes)
        if outcomes.finished:
            self.forget(drawing.ranks[list(outcomes.finished)])
        return outcomes

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None) -> None:
        """A sample has further tokens that it did not draw here."""
        watched = self._watched.item(row)
        for bit, watcher in self._bits.items():
            if bit & watched:
                watcher.adopt(rank, row, tokens, logprobs)

    def collected(self, rank: int) -> tuple[TokenLogprobs, ...] | None:
        """The log-probabilities of a sample's tokens so far, where its row asks for them."""
        found = (watcher.collected(rank) for watcher in self._bits.values())
        return next((logprobs for logprobs in found if logprobs is not None), None)

    def _samples_of(self, bit: int, drawing: Drawing) -> Ints:
        """The samples that a watcher watches."""
        if bit & self._common:
            return np.arange(len(drawing))
        return np.flatnonzero(self._watched[drawing.rows] & bit)

    def forget(self, ranks: Ints) -> None:
        """Drop what is held for samples that are gone."""
        for watcher in self._bits.values():
            watcher.forget(ranks)
