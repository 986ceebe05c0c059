"""Holds answers to the form that their rows ask for: a token may be drawn where the form goes on with it.

Masks of a step are made by another thread while the model computes the step. Where a form leaves one way to go on, its
tokens are known before they are drawn, and given to the scheduler, which has them computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.errors import InvalidRequest
from umbel.ir.contain import row_error
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.request import RowError
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens, TokenIds
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import DrawMasks, Masks, n_words
from umbel.spec.base import Drafts
from umbel.text.grammars import Grammars
from umbel.text.masker import Masker


@dataclass(slots=True)
class Followed:
    """A sample on its way through its form: `state` has seen all of its tokens but the `new` ones, and those `coming`
    behind them, which are certain. `ends` are what ends it beside the model's end tokens. `error`: why it cannot be
    followed further."""

    asked: StructuredOutputsParams
    ends: tuple[int, ...]
    state: Any = None
    new: list[int] = field(default_factory=list)
    coming: list[int] = field(default_factory=list)
    error: RowError | None = None


class Grammar(Watcher):
    """Watches rows with `structured_outputs`."""

    lockstep = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._around = around
        self._samples: dict[int, Followed] = {}  # by rank
        self.masking = self.forcing = around.vocab_size is not None and around.tokenizer is not None

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has `structured_outputs`."""
        return params.structured_outputs is not None

    def meet(self, params: Sequence[SamplingParams]) -> None:
        """Have their forms compiled while the first prompts are computed."""
        forms = dict.fromkeys(p.structured_outputs for p in params if p.structured_outputs is not None)
        if forms and self.masking and self._around.eos:
            self._masker.prepare(forms)

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Take in the tokens that count; rows whose forms could not be followed fail."""
        drawing = sampled.drawing
        for sample in which.tolist():
            row, keep = drawing.rows.item(sample), outcomes.keep.item(sample)
            followed = self._of(drawing.ranks.item(sample), row)
            if followed.error is not None:  # a better reason than that no token is left
                outcomes.keep[sample] = 0
                outcomes.failed[row] = followed.error
            elif sample not in outcomes.finished:
                begin = drawing.begin.item(sample)
                followed.new += sampled.tokens[begin : begin + keep].tolist()

    def forced(self, ranks: Ints, rows: Ints, most: Ints) -> Drafts | None:
        """What is certain to come next."""
        samples = [self._of(rank, row) for rank, row in zip(ranks.tolist(), rows.tolist(), strict=True)]
        for one, limit in zip(samples, most.tolist(), strict=True):
            self._advance(one)
            if one.error is None:
                one.coming = self._masker.forced(one.state, limit)
        return Drafts.of([one.coming for one in samples]) if any(one.coming for one in samples) else None

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """The tokens with which the forms of these samples go on; they are filled in while this returns. A draw in
        whose place a token is certain may give that one alone."""
        draws, last = np.flatnonzero(np.isin(drawing.owner, which)), drawing.begin[which + 1] - 1
        mask = np.full(len(drawing.owner), -1)
        mask[draws] = np.arange(len(draws))
        masks = np.zeros((len(draws), n_words(self._around.vocab_size or 0)), np.uint32)
        samples = [
            self._of(*pair) for pair in zip(drawing.ranks[which].tolist(), drawing.rows[which].tolist(), strict=True)
        ]
        if len(draws) > len(which) and drawing.proposed is not None:
            certain = np.setdiff1d(draws, last)
            tokens = drawing.proposed[certain]
            masks[mask[certain], tokens // 32] = np.uint32(1) << (tokens % 32).astype(np.uint32)
        for one, proposed in zip(samples, (drawing.counts[which] - 1).tolist(), strict=True):
            self._drop(one, proposed)
        filling = self._worker.submit(self._fill, samples, mask[last].tolist(), masks)
        return DrawMasks(mask, masks, filling.result)

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """Follow tokens that the sample did not draw."""
        self._of(rank, row).new += tokens.tolist()

    def forget(self, ranks: Ints) -> None:
        """Drop samples that are gone."""
        for rank in ranks.tolist() if self._samples else ():
            self._samples.pop(rank, None)

    def _of(self, rank: int, row: int) -> Followed:
        if rank not in self._samples:
            asked = self.requests.params[row].structured_outputs
            assert asked is not None
            ends = tuple(id for id in self.requests.end_ids[row] if id not in self._around.eos)
            self._samples[rank] = Followed(asked, ends)
        return self._samples[rank]

    def _fill(self, samples: Sequence[Followed], places: Sequence[int], masks: Masks) -> None:
        """Bring samples up to their last tokens, and fill in what may come next: a mask each, empty for those that
        cannot be followed."""
        for one in samples:
            if one.new or one.state is None:
                self._advance(one)
        live = [(one, place) for one, place in zip(samples, places, strict=True) if one.error is None]
        if not live:
            return
        faults = self._masker.fill([(one.state, place) for one, place in live], masks)
        for one, place in live:
            if place in faults:
                one.error, masks[place] = _failed(faults[place]), 0
            elif one.ends and _any_of(masks[place], self._around.eos):
                _put(masks[place], one.ends)

    def _advance(self, one: Followed) -> None:
        """Have the state see what is new."""
        if one.error is not None:
            return
        try:
            if one.state is None:
                one.state = self._masker.start(one.asked)
            seen = _in_common(one.coming, one.new)
            self._drop(one, seen)
            reason = self._masker.advance(one.state, one.new[seen:])
            one.error = None if reason is None else _failed(reason)
        except InvalidRequest as error:
            one.error = row_error(error)
        one.new, one.coming = [], []

    def _drop(self, one: Followed, keep: int) -> None:
        """Only the first tokens that were certain come in this step."""
        if len(one.coming) > keep:
            self._masker.back(one.state, len(one.coming) - keep)
            one.coming = one.coming[:keep]

    @cached_property
    def _masker(self) -> Masker:
        around = self._around
        if around.tokenizer is None or around.vocab_size is None:
            raise InvalidRequest("unsupported_parameter", "structured_outputs need the model's tokenizer")
        return around.tokenizer.masker(Grammars, around.vocab_size, around.eos)

    @cached_property
    def _worker(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "umbel-masks")


def _failed(reason: str) -> RowError:
    return RowError("grammar_failed", f"structured_outputs: {reason}", "structured_outputs")


def _in_common(coming: Sequence[int], new: Sequence[int]) -> int:
    """How many of the first tokens are the same."""
    return next(
        (i for i, pair in enumerate(zip(coming, new, strict=False)) if pair[0] != pair[1]), min(len(coming), len(new))
    )


def _any_of(mask: Masks, ids: Sequence[int]) -> bool:
    return any(mask.item(id // 32) >> id % 32 & 1 for id in ids)


def _put(mask: Masks, ids: Sequence[int]) -> None:
    for id in ids:
        mask[id // 32] |= np.uint32(1 << id % 32)
