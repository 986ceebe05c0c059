"""A line on a terminal that says how far something is which takes longer than a moment."""

from __future__ import annotations

import sys
import time

PATIENCE, REFRESH = 1.0, 0.25  # seconds until something is shown, and between two of its states


class Ticker:
    """Shows the latest text on stderr where it is a terminal, in one line that is written over."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PATIENCE
        self._shown = False

    def __call__(self, text: str) -> None:
        """Show a text; called as often as there is a new one."""
        if time.monotonic() >= self._next and sys.stderr.isatty():
            self._next = time.monotonic() + REFRESH
            self._shown = True
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
