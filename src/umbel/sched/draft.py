"""What the scheduler has decided for the next step so far: which tokens of which nodes, within the budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def _none() -> Ints:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Draft:
    """The step in the making; `budget` tokens are still to be given out.

    `nodes`: prompt node -> tokens of it to compute. `again`: complete prompt nodes whose last token is fed once more,
    because a sample wants its logits. `tails`, `tail_tokens`: slots that extend their tail, and by how many tokens.
    `firsts`: slots that draw their first token from the last row of their leaf.
    """

    budget: int
    nodes: dict[int, int] = field(default_factory=dict)
    again: dict[int, None] = field(default_factory=dict)
    tails: Ints = field(default_factory=_none)
    tail_tokens: Ints = field(default_factory=_none)
    firsts: list[int] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing was decided yet."""
        return not self.nodes and not self.again and len(self.tails) == 0

    def add_tail(self, slot: int, tokens: int) -> None:
        """Extend the tail of `slot` by `tokens` tokens."""
        self.tails = np.append(self.tails, slot)
        self.tail_tokens = np.append(self.tail_tokens, tokens)
        self.budget -= tokens
