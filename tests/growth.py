"""Whether work grows in proportion: the best of several looks, since other programs only add time."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOKS = 5


def assert_growth(small: Callable[[], object], large: Callable[[], object], limit: float, least: float = 0.02) -> None:
    """Assert that one of at most `LOOKS` looks shows `large` within `limit` times the processor time of `small`.

    Quadratic work shows its square in every look, a disturbed machine only in some. `least` is the shortest time of
    `small` that is believed, in seconds.
    """
    looks: list[tuple[float, float]] = []
    while len(looks) < LOOKS:
        looks.append((_seconds(small), _seconds(large)))
        if looks[-1][1] <= limit * max(looks[-1][0], least):
            return
    raise AssertionError(f"more than {limit:g} times the seconds in every look: {looks}")


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
