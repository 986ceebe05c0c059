"""The tokens of one sample, each once, with how often it was generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import lengthen
from umbel.ir.logit_changes import NOT_SEEN

Ints = NDArray[np.int64]


class TokenCounts:
    """The first `used` entries of `ids`, `counts` and `bias` are those that LogitChanges takes, of biased tokens first,
    then of the prompt's, then of those that were generated."""

    def __init__(self, biases: Sequence[tuple[int, float]], prompt: NDArray[np.int32]):
        biased = np.array([token for token, _ in biases], np.int64)
        seen = np.unique(prompt).astype(np.int64)
        new = seen[~np.isin(seen, biased)]
        self.used = len(biased) + len(new)
        self.ids = np.concatenate([biased, new])
        self.counts = np.where(np.isin(self.ids, seen), 0, NOT_SEEN)
        self.bias = np.zeros(self.used, np.float32)
        self.bias[: len(biased)] = [bias for _, bias in biases]
        self._place = dict(zip(self.ids.tolist(), range(self.used), strict=True))

    def add(self, tokens: Iterable[int]) -> None:
        """Further tokens were generated."""
        for token in tokens:
            place = self._place.get(token)
            if place is None:
                place = self._place[token] = self.used
                self._lengthen()
                self.ids[place], self.counts[place] = token, NOT_SEEN
            self.counts[place] = max(self.counts.item(place), 0) + 1

    def followed_by(self, tokens: Iterable[int]) -> TokenCounts:
        """What it would be with further tokens; it stays as it is."""
        found = copy(self)
        found.ids, found.counts, found.bias = self.ids.copy(), self.counts.copy(), self.bias.copy()
        found._place = dict(self._place)
        found.add(tokens)
        return found

    def _lengthen(self) -> None:
        self.used += 1
        self.ids, self.counts = lengthen(self.ids, self.used), lengthen(self.counts, self.used)
        self.bias = lengthen(self.bias, self.used)
