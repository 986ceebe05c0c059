"""Where the engine tells what its time goes into: a profile listens, otherwise nobody does."""

from __future__ import annotations

from typing import Protocol, TypeVar

from umbel.ir.step import Step

T = TypeVar("T")


class Spans(Protocol):
    """Hears of time in the order in which it passes, on one thread. Steps lie between `open` and `close`."""

    def lap(self, name: str, value: T) -> T:
        """What ran since the last call was `name`; gives `value` back, so that it can stand around what it times."""
        ...

    def open(self) -> None:
        """A step begins here; one that is opened again before it was closed did not come to be."""
        ...

    def close(self, step: Step, kv_read: int) -> None:
        """The step that was opened last is over: what it was, and how many KV tokens each layer read."""
        ...


class Unheard:
    """Nobody listens."""

    __slots__ = ()

    def lap(self, name: str, value: T) -> T:
        """Gives `value` back."""
        return value

    def open(self) -> None:
        """Nothing."""

    def close(self, step: Step, kv_read: int) -> None:
        """Nothing."""


UNHEARD = Unheard()
