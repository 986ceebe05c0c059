"""What the scheduler has decided for the next step so far: which tokens of which nodes, within the budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.sched.stage import Passing

Ints = NDArray[np.int64]


def _none() -> Ints:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Agenda:
    """The step in the making; `budget` tokens are still to be given out.

    `counts`: shared run -> tokens of it to compute. `refeed`: complete shared runs whose last token is fed once more,
    because a sample wants its logits. `slots`, `tip_counts`: samples that extend their tips, and by how many tokens.
    `drafted`: how many of these are proposed ones (`[slots]`; None: no token is).
    `firsts`: samples that draw the first token of their tips, from the last row of the run above. `level`: only samples
    of rows of this priority are looked at now (None: all). `plain`: the seconds that the step takes without rows that
    are less urgent than those somebody reads along with (None: not worked out). `passing`: runs on their way.
    """

    budget: int
    counts: dict[int, int] = field(default_factory=dict)
    refeed: dict[int, None] = field(default_factory=dict)
    slots: Ints = field(default_factory=_none)
    tip_counts: Ints = field(default_factory=_none)
    drafted: Ints | None = None
    firsts: list[int] = field(default_factory=list)
    level: int | None = None
    plain: float | None = None
    passing: Passing | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was decided yet."""
        return not self.counts and not self.refeed and len(self.slots) == 0

    def add_tips(self, slots: Ints, counts: Ints) -> None:
        """Extend the tips of the samples in `slots` by so many tokens each, none of them proposed."""
        self.slots = np.concatenate([self.slots, slots])
        self.tip_counts = np.concatenate([self.tip_counts, counts])
        self.budget -= int(counts.sum())

    def add_tip(self, slot: int, tokens: int) -> None:
        """Extend the tip of the sample in `slot` by `tokens` tokens."""
        self.slots = np.append(self.slots, slot)
        self.tip_counts = np.append(self.tip_counts, tokens)
        self.drafted = None if self.drafted is None else np.append(self.drafted, 0)
        self.budget -= tokens
