"""Python's search for reference cycles, less often while a job runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 50_000  # after which it searches; Python's own number is 700


@contextmanager
def rare_searches() -> Iterator[None]:
    """Within the block, search after `NEW_OBJECTS` new objects, unless the program has set a larger number or none.

    Rows are many objects that live long and form no cycles: searching them again and again takes a tenth of what a job
    takes beside the model.
    """
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], NEW_OBJECTS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
