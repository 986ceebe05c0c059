"""Keeps samples to the tokens that their rows allow, whatever came before: `allowed_token_ids`, bad words of one
token."""

from __future__ import annotations

import numpy as np

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.engine.watch.by_params import ByParams
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints
from umbel.ir.token_masks import DrawMasks, Masks, all_but, none_but
from umbel.text.tokenizer import Tokenizer


class AllowedTokens(Watcher):
    """Watches rows with `allowed_token_ids` or `bad_words`."""

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._vocab_size, self._tokenizer = around.vocab_size or 0, around.tokenizer
        self._masks = ByParams(self._mask)
        self.masking = around.vocab_size is not None

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row forbids any token."""
        return params.allowed_token_ids is not None or bool(params.bad_words)

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """The same tokens for each draw of a sample."""
        each = [self.requests.params[row] for row in drawing.rows[which].tolist()]
        shared = {id(params): params for params in each}
        places = {known: place for place, known in enumerate(shared)}
        of_sample = np.full(len(drawing), -1)
        of_sample[which] = [places[id(params)] for params in each]
        return DrawMasks(of_sample[drawing.owner], np.stack([self._masks.of(params) for params in shared.values()]))

    def _mask(self, params: SamplingParams) -> Masks:
        allowed, runs = params.allowed_token_ids, runs_of(self._tokenizer, params.bad_words)
        mask = all_but((run[0] for run in runs if len(run) == 1), self._vocab_size)
        return mask if allowed is None else mask & none_but(allowed, self._vocab_size)


def runs_of(tokenizer: Tokenizer | None, words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The runs of tokens that spell bad words; none where there is no tokenizer: rows that have some are refused there,
    unless the model is simulated."""
    return tokenizer.word_runs.of(words) if words and tokenizer is not None else ()
