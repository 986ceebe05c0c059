"""Has hidden states given instead of tokens to rows that want vectors, and makes of them what each row asked for."""

from __future__ import annotations

import numpy as np

from umbel.engine.row_errors import NOT_FINITE
from umbel.engine.watch.base import Surroundings, Watcher
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Ints, Outcomes, SampledTokens


class Vectors(Watcher):
    """Watches rows with `pooling_params`: each ends with its only draw, which gives its vector."""

    pooling = True

    def __init__(self, around: Surroundings):
        super().__init__(around)
        self._pooler, self._mean_of = around.pooler, around.mean_of

    def watches(self, params: SamplingParams) -> bool:
        """Whether the row wants a vector."""
        return params.pooling_params is not None

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Samples that end take their vectors along."""
        drawing, vectors = sampled.drawing, sampled.result.vectors
        for sample in which.tolist() if vectors is not None else ():
            row = drawing.rows.item(sample)
            asked = self.requests.params[row].pooling_params
            if vectors is None or asked is None or sample not in outcomes.finished:
                continue
            mean = self._mean_of(row)
            pooled = vectors[drawing.begin.item(sample + 1) - 1] if mean is None else mean
            if np.isnan(pooled).any():
                outcomes.fail(sample, row, NOT_FINITE)
            else:
                outcomes.finished[sample].vector = self._pooler.finished(pooled, asked)
