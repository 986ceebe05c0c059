"""Holds answers to the form that their rows ask for: a token may be drawn where the form's grammar goes on with it.

Masks of a step are made by another thread while the model computes the step, all of them at once, without Python in
between (llguidance's executor).
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
from umbel.ir.grammars import brief, library
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.request import RowError
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens, TokenIds
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import DrawMasks, Masks, n_words
from umbel.text.grammars import Grammars


@dataclass(slots=True)
class Followed:
    """A sample on its way through its grammar: `matcher` has seen all of its tokens but the `new` ones; `ends` are what
    ends it beside the model's end tokens. `error`: why it cannot be followed further."""

    asked: StructuredOutputsParams
    ends: tuple[int, ...]
    matcher: Any = None
    new: list[int] = field(default_factory=list)
    error: RowError | None = None


class Grammar(Watcher):
    """Watches rows with `structured_outputs`."""

    lockstep = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._around = around
        self._samples: dict[int, Followed] = {}  # by rank
        self.masking = around.vocab_size is not None and around.tokenizer is not None

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has `structured_outputs`."""
        return params.structured_outputs is not None

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Take in the tokens that count; rows whose grammars could not be followed fail."""
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

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """The tokens with which the grammars of these samples go on; they are filled in while this returns."""
        draws, mask = drawing.begin[which], np.full(len(drawing.owner), -1)
        mask[draws] = np.arange(len(which))
        masks = np.zeros((len(which), n_words(self._around.vocab_size or 0)), np.uint32)
        pairs = zip(drawing.ranks[which].tolist(), drawing.rows[which].tolist(), strict=True)
        filling = self._worker.submit(self._fill, [self._of(rank, row) for rank, row in pairs], masks)
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

    def _fill(self, samples: Sequence[Followed], masks: Masks) -> None:
        """Bring samples up to their last tokens, and fill in what may come next: a mask each, empty for those that
        cannot be followed."""
        for one in samples:
            self._advance(one)
        live = [(one, place) for place, one in enumerate(samples) if one.error is None]
        if not live:
            return
        pairs = [(one.matcher, place) for one, place in live]
        self._executor.unsafe_compute_mask_ptr(pairs, masks.ctypes.data, masks.itemsize * masks.shape[1], len(masks))
        for one, place in live:
            if one.matcher.is_error():
                one.error, masks[place] = _failed(one.matcher), 0
            elif one.ends and _any_of(masks[place], self._around.eos):
                _put(masks[place], one.ends)

    def _advance(self, one: Followed) -> None:
        if one.error is not None:
            return
        try:
            if one.matcher is None:
                one.matcher = self._grammars.start(one.asked)
            if one.new and not one.matcher.consume_tokens(one.new):
                one.error = _failed(one.matcher)
        except InvalidRequest as error:
            one.error = row_error(error)
        one.new = []

    @cached_property
    def _grammars(self) -> Grammars:
        around = self._around
        if around.tokenizer is None or around.vocab_size is None:
            raise InvalidRequest("unsupported_parameter", "structured_outputs need the model's tokenizer")
        return around.tokenizer.grammars(around.vocab_size, around.eos)

    @cached_property
    def _worker(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "umbel-masks")

    @cached_property
    def _executor(self) -> Any:
        return library().LLExecutor()


def _failed(matcher: Any) -> RowError:
    return RowError("grammar_failed", f"structured_outputs: {brief(matcher.get_error())}", "structured_outputs")


def _any_of(mask: Masks, ids: Sequence[int]) -> bool:
    return any(mask.item(id // 32) >> id % 32 & 1 for id in ids)


def _put(mask: Masks, ids: Sequence[int]) -> None:
    for id in ids:
        mask[id // 32] |= np.uint32(1 << id % 32)
