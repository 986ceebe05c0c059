"""Arrays that grow at their end, as attributes of the object that reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 1 << 20  # entries; longer columns are taken over without a copy until they grow for the first time


class Growable:
    """Columns that get longer in amortised time of what is added.

    A column is a view on the used part of a block of memory, which doubles when it is full. Entries may be written in
    place; after each growth the attribute is another array, so it is read again rather than kept.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, NDArray[Any]] = {}

    def _grow(self, **added: NDArray[Any]) -> None:
        """Put entries behind those of the columns of that name; a column that is new holds only these."""
        for name, values in added.items():
            setattr(self, name, self._longer(name, values))

    def _longer(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        block, used = self._blocks.get(name), 0
        if block is None and len(values) > _SMALL:
            self._blocks[name] = values
            return values
        if block is not None:
            used = len(getattr(self, name))
        total = used + len(values)
        if block is None or total > len(block):
            wider = np.empty(total + total // 2 + 64, values.dtype if block is None else block.dtype)
            if block is not None:
                wider[:used] = block[:used]
            self._blocks[name] = block = wider
        block[used:total] = values
        return block[:total]
