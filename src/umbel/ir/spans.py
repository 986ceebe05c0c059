"""How the engine reports where its time goes: to the recorder of a profile, or to nothing."""

from __future__ import annotations

from typing import Protocol, TypeVar

from umbel.ir.step import Step

T = TypeVar("T")


class Spans(Protocol):
    """Receives spans of time in the order in which they pass, on one thread. Steps lie between `open` and `close`."""

    def lap(self, name: str, value: T) -> T:
        """Attribute the time since the last call to `name`; returns `value`, so that the call can enclose what it
        times."""
        ...

    def open(self) -> None:
        """Begin a step; opening again without `close` discards the step."""
        ...

    def close(self, step: Step, kv_read: int) -> None:
        """End the step that was opened last: what it was, and how many KV tokens each layer read."""
        ...


class NoSpans:
    """Spans without a recorder."""

    __slots__ = ()

    def lap(self, name: str, value: T) -> T:
        """Return `value`."""
        return value

    def open(self) -> None:
        """Do nothing."""

    def close(self, step: Step, kv_read: int) -> None:
        """Do nothing."""


NO_SPANS = NoSpans()
