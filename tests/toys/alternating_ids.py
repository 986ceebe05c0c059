"""A watcher as another package would bring it: odd ids follow even ones and the other way round."""

from __future__ import annotations

import numpy as np

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens
from umbel.ir.token_masks import DrawMasks, Masks, all_but
from umbel.technique import Technique

ROW = Technique("watcher", "alternating", exact=True, loads="alternating_ids:Alternating")


class Alternating(Watcher):
    """Watches rows with a seed; each draw depends on the last token."""

    lockstep = masking = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self.vocab_size = around.vocab_size or 0
        self.known: dict[int, list[int]] = {}  # tokens so far, by rank
        self.late: list[int] = []  # at each draw, how many of the tokens before it are not known yet

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row has a seed of its own."""
        return params.seed is not None

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Note the tokens that count."""
        for i in which.tolist():
            begin = int(sampled.drawing.begin[i])
            tokens = sampled.tokens[begin : begin + int(outcomes.keep[i])].tolist()
            self.known.setdefault(int(sampled.drawing.ranks[i]), []).extend(tokens)

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """Forbid the ids of the last token's parity."""
        known = [self.known.get(rank, []) for rank in drawing.ranks[which].tolist()]
        self.late += (drawing.before[which] - [len(tokens) for tokens in known]).tolist()
        mask = np.full(int(drawing.begin[-1]), -1)
        mask[drawing.begin[which]] = np.arange(len(which))
        return DrawMasks(mask, np.stack([self._mask(tokens) for tokens in known]))

    def forget(self, ranks: Ints) -> None:
        """Drop the tokens of samples that are gone."""
        for rank in ranks.tolist():
            self.known.pop(rank, None)

    def _mask(self, tokens: list[int]) -> Masks:
        return all_but(range(tokens[-1] % 2, self.vocab_size, 2) if tokens else (), self.vocab_size)
