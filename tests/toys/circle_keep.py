"""A keep rule as another package would bring it: what was read last goes first, for rows that come in a circle."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.technique import Technique

ROW = Technique(
    "keep",
    "circle",
    exact=True,
    loads="circle_keep:Circle",
    why_not="gives up what was read last, which helps only where rows come round in a circle",
)


@dataclass(frozen=True, slots=True)
class Circle:
    """Prompts stay until their pages are wanted."""

    retains: bool = True

    def key(self, label: int, moment: int) -> int:
        """The lowest goes first."""
        return -moment
