"""Prompts of which some tokens are left out, while the others keep the positions that they had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.workload import Workload

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CutWorkload(Workload):
    """Rows without the tokens that are left out: `at` (`[rows]`) has the positions of those that stay in their whole
    prompt (ascending, the last one is the prompt's last), None for a row of which all stay; `whole` (`[rows]`) the
    lengths of the whole prompts."""

    at: tuple[Ints | None, ...] = ()
    whole: Ints | None = None

    @property
    def left_out(self) -> int:
        """Tokens that are left out, of all rows."""
        return 0 if self.whole is None else int(self.whole.sum()) - len(self.tokens)
