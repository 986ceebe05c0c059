"""What rows have done to single logits before a token is drawn: biases, and penalties for tokens that were there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import runs

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

NO_PENALTIES = (1.0, 0.0, 0.0)
NOT_SEEN = -1


@dataclass(frozen=True, slots=True)
class LogitChanges:
    """Changes of the logits that some draws of a step are made from.

    `draws` (`[k]`) are these draws, each once; draw `draws[i]` has the entries `begin[i]:begin[i + 1]`, one for each of
    its tokens: `ids`, the `bias` of each, and in `counts` how often it was generated (0: it is in the prompt alone,
    NOT_SEEN: in neither). `penalties` (`[k, 3]`) are the draw's repetition, frequency and presence penalty. In float32
    and in this order a logit x becomes x + bias, then of a token that was seen x / repetition if x > 0 and
    x * repetition if not, then of one that was generated x - frequency * count and x - presence (vLLM's order).
    """

    draws: Ints
    begin: Ints
    ids: Ints
    bias: Floats
    counts: Ints
    penalties: Floats

    def __len__(self) -> int:
        return len(self.draws)

    def only(self, which: NDArray[np.bool_]) -> LogitChanges:
        """The changes of some of the draws (`which`, `[k]`)."""
        if which.all():
            return self
        sizes = np.diff(self.begin)[which]
        at = runs(self.begin[:-1][which], sizes)
        begin = np.append(0, np.cumsum(sizes))
        draws, penalties = self.draws[which], self.penalties[which]
        return LogitChanges(draws, begin, self.ids[at], self.bias[at], self.counts[at], penalties)

    def of(self, draws: Ints) -> LogitChanges:
        """The changes of those among some draws (ascending) that have any, told by their places in `draws`."""
        found = self.only(np.isin(self.draws, draws))
        places = np.searchsorted(draws, found.draws)
        return LogitChanges(places, found.begin, found.ids, found.bias, found.counts, found.penalties)


def join_changes(parts: Sequence[LogitChanges]) -> LogitChanges | None:
    """Changes of different draws of one step together; None where there are none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    sizes = [np.diff(part.begin) for part in parts]
    return LogitChanges(
        np.concatenate([part.draws for part in parts]),
        np.append(0, np.cumsum(np.concatenate(sizes))),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.bias for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.penalties for part in parts]),
    )
