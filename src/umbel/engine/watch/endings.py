"""How samples end without a look at their text: at an end token, at their limit, where no token can be drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.engine.row_errors import NO_TOKEN_LEFT, NOT_FINITE
from umbel.engine.watch.base import Watcher
from umbel.ir.sampled import Finish, Ints, Outcomes, SampledTokens

FEW = 16  # end tokens


class Endings(Watcher):
    """Watches every row."""

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """End samples at end tokens and at their limits, and drop rows for which no token could be drawn.

        Only tokens that end some row, or that are the last of their sample, are looked at one by one.
        """
        if sampled.result.bad.any():
            self._fail(sampled, outcomes)
        drawing, tokens = sampled.drawing, sampled.tokens
        places = drawing.places
        full = places + 1 >= (drawing.limits if drawing.single else drawing.limits[drawing.owner])
        suspects, owner = np.flatnonzero(full | _among(tokens, self.requests.any_end)), drawing.owner
        for draw in suspects.tolist():
            sample = owner.item(draw)
            nth = draw - drawing.begin.item(sample) + 1
            if nth <= outcomes.keep.item(sample):
                row, number = drawing.rows.item(sample), places.item(draw) + 1
                finish = self._finish(row, tokens.item(draw), number, last=full.item(draw))
                if finish is not None:
                    kept = nth if self.requests.params[row].max_tokens != 0 else 0
                    outcomes.end(sample, kept, finish)

    def _finish(self, row: int, token: int, number: int, *, last: bool) -> Finish | None:
        """How a sample ends with its token of that number, if it does."""
        params = self.requests.params[row]
        if token in self.requests.end_ids[row] and number > params.min_tokens and params.max_tokens != 0:
            return Finish("stop", token if token in params.stop_token_ids else None)
        return Finish("length") if last else None

    def _fail(self, sampled: SampledTokens, outcomes: Outcomes) -> None:
        """Draws that count came to nothing: their rows cannot be answered."""
        drawing = sampled.drawing
        draws = np.flatnonzero(sampled.result.bad)
        for draw, sample in zip(draws.tolist(), drawing.owner[draws].tolist(), strict=True):
            if draw - drawing.begin.item(sample) < outcomes.keep.item(sample):
                error = NO_TOKEN_LEFT if sampled.left_nothing(draw) else NOT_FINITE
                outcomes.fail(sample, drawing.rows.item(sample), error)


def _among(tokens: Ints, ids: Ints) -> NDArray[np.bool_]:
    """Which of the tokens are one of `ids`: a model has few end tokens, for which a comparison each takes a third of
    the time that np.isin takes."""
    if len(ids) > FEW:
        return np.isin(tokens, ids)
    found = np.zeros(len(tokens), bool)
    for token in ids.tolist():
        found |= tokens == token
    return found
