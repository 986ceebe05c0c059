"""A keep rule as another package would bring it: prompts stay, and what comes last in depth-first order goes first."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.technique import Technique

ROW = Technique(
    "keep",
    "walk",
    exact=True,
    loads="walk_keep:InWalkOrder",
    why_not="keeps the first prompts of the walk, for rows that walk them again",
)


@dataclass(frozen=True, slots=True)
class InWalkOrder:
    """Prompts stay until their pages are wanted."""

    retains: bool = True

    def key(self, label: int, moment: int) -> int:
        """The node with the lowest key is evicted first."""
        return -label
