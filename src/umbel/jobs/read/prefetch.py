"""Prepares the next window in a thread while the engine runs the current one, and counts the seconds that the engine
waited."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

SWITCH_SECONDS = 0.0005


class Halt:
    """Asks a thread to stop the next time that it checks."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Let `check` raise from now on."""
        self._asked.set()

    def check(self) -> None:
        """Raise Halted once a halt was asked for."""
        if self._asked.is_set():
            raise Halted


class Halted(BaseException):
    """Ends a thread whose work is no longer wanted; never seen outside of it.

    Not an Exception, so that code which contains failures of single rows lets it through.
    """


class Ahead(Generic[T]):
    """Iterates over `items`, each made in a thread while the one before is used.

    `starved_seconds` is the time waited for items after the first. Leaving the context asks `halt`, which the maker of
    the items checks, and waits for the thread.
    """

    def __init__(self, items: Iterator[T], halt: Halt, clock: Callable[[], float] = time.monotonic):
        self.starved_seconds = 0.0
        self._items = items
        self._halt = halt
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="umbel-ahead")
        self._interval = sys.getswitchinterval()
        self._coming: Future[T | None] | None = None  # None until the first item is asked for
        self._taken = 0

    def __enter__(self) -> Ahead[T]:
        # The engine's steps are many short calls; after each it would wait 5 ms for a thread that computes in Python.
        sys.setswitchinterval(min(self._interval, SWITCH_SECONDS))
        return self

    def __exit__(self, *error: object) -> None:
        sys.setswitchinterval(self._interval)
        self._halt.ask()
        self._pool.shutdown(cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether the next item, or the end, is there without waiting."""
        return self._coming is not None and self._coming.done()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        """The next item; raises what making it raised."""
        coming, began = self._coming or self._begin(), self._clock()
        item = coming.result()
        if item is None:
            self._coming = coming
            raise StopIteration
        self.starved_seconds += self._clock() - began if self._taken else 0.0
        self._taken += 1
        self._coming = self._begin()
        return item

    def _begin(self) -> Future[T | None]:
        return self._pool.submit(next, self._items, None)
