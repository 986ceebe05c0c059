"""Keeps samples from ending before their `min_tokens`: until then no token may be drawn that would end them."""

from __future__ import annotations

import numpy as np

from umbel.engine.row_errors import ALL_BANNED
from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens
from umbel.ir.token_masks import DrawMasks, Masks, all_but


class MinTokens(Watcher):
    """Watches rows with `min_tokens`. There is one mask for each set of end ids, made when it is first needed."""

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._vocab_size = around.vocab_size
        self._masks: dict[tuple[int, ...], Masks] = {}
        self.masking = around.vocab_size is not None

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has `min_tokens`."""
        return params.min_tokens > 0

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Say so where nothing could be drawn because every token of the vocabulary ends the row."""
        if not sampled.result.bad.any():
            return
        drawing = sampled.drawing
        for sample in which[sampled.result.bad[drawing.begin[which]]].tolist():
            row = int(drawing.rows[sample])
            early = drawing.before[sample] < self.requests.min_tokens[row]
            if early and not self._mask(self.requests.end_ids[row]).any():
                outcomes.fail(sample, row, ALL_BANNED)

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """Forbid the tokens that end a row to its samples that are shorter than its `min_tokens`."""
        owner = drawing.owner
        early = drawing.places < self.requests.min_tokens[drawing.rows[owner]]
        draws = np.flatnonzero(early)
        if len(draws) == 0:
            return None
        ends = [self.requests.end_ids[row] for row in drawing.rows[owner[draws]].tolist()]
        used = {ids: place for place, ids in enumerate(dict.fromkeys(ends))}
        mask = np.full(len(owner), -1)
        mask[draws] = [used[ids] for ids in ends]
        return DrawMasks(mask, np.stack([self._mask(ids) for ids in used]))

    def _mask(self, ids: tuple[int, ...]) -> Masks:
        """All tokens but these."""
        if ids not in self._masks:
            self._masks[ids] = all_but(ids, self._vocab_size or 0)
        return self._masks[ids]
