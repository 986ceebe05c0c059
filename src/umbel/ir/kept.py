"""What a step has to know of paths of which a part was forgotten: see docs/forgetting.md; arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Edit:
    """A path is cut down to fewer places before a step's layers run, whose own keys and values come later.

    `sources` (`[places]`): KV slots of the path, in order: first the memory that an earlier edit left, if one did, then
    a place for each position from `before` on (0: there was none) up to `end`. `targets` (`[kept]`): slots in which
    what is kept goes, in order; some may be among the sources. `prompt` is the length of the row's prompt, which ends
    before `end` or there.
    """

    sources: Ints
    targets: Ints
    prompt: int
    before: int
    end: int

    @property
    def raw(self) -> int:
        """Places of the path that no edit has seen: the last ones."""
        return self.end - self.before


@dataclass(frozen=True, slots=True)
class Shortened:
    """Where places of a step's paths are not positions: the `positions` of its rows (`[rows]`), of which rotary angles
    are made, and what is to be forgotten first, in this order."""

    positions: Ints
    edits: tuple[Edit, ...]
