"""Lines in blocks, as they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

BLOCK_LINES = 1_024


def blocks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines, many at a time."""
    source = iter(lines)
    while block := list(islice(source, BLOCK_LINES)):
        yield block
