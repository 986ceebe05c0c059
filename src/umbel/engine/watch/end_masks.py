"""What a sample may draw before its `min_tokens`: every token but those that would end it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from umbel.ir.token_masks import DrawMasks, Ints, Masks, all_but


class EndMasks:
    """One mask for each set of end ids, made when it is first needed."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self._masks: dict[tuple[int, ...], Masks] = {}

    def of(self, ends: Sequence[tuple[int, ...]], draws: Ints, count: int) -> DrawMasks:
        """Masks for `count` draws, of which `draws[i]` must not give one of the ids `ends[i]`."""
        used = {ids: place for place, ids in enumerate(dict.fromkeys(ends))}
        mask = np.full(count, -1)
        mask[draws] = [used[ids] for ids in ends]
        return DrawMasks(mask, np.stack([self._mask(ids) for ids in used]))

    def _mask(self, ids: tuple[int, ...]) -> Masks:
        if ids not in self._masks:
            self._masks[ids] = all_but(ids, self.vocab_size)
        return self._masks[ids]
