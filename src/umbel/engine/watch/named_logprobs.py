"""Has the log-probabilities of tokens computed that rows name, instead of those of the most likely ones."""

from __future__ import annotations

import numpy as np

from umbel.engine.watch.base import Surroundings, Watcher
from umbel.engine.watch.by_params import ByParams
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Drawing, Ints


class NamedLogprobs(Watcher):
    """Watches rows with `logprob_token_ids`; what comes out is collected with all log-probabilities."""

    naming = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._ids = ByParams(lambda params: np.array(params.logprob_token_ids, np.int64))

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row names tokens."""
        return bool(params.logprob_token_ids)

    def named(self, drawing: Drawing, which: Ints) -> Ints | None:
        """The tokens that the rows of the samples name."""
        each = [self._ids.of(self.requests.params[row]) for row in drawing.rows[which].tolist()]
        found = np.full((drawing.begin.item(-1), max(map(len, each))), -1)
        for sample, ids in zip(which.tolist(), each, strict=True):
            found[drawing.begin.item(sample) : drawing.begin.item(sample + 1), : len(ids)] = ids
        return found
