"""The row goes first that has to start first for its first token to be in time: the earliest deadline, less the seconds
that its prompt is predicted to take (least slack; Liu and Layland's rule for prompts of equal length)."""

from __future__ import annotations

from umbel.sched.policies.lines import Lines


class Deadline(Lines):
    """One line for each priority, by the time until which a row may wait."""

    def key(self, row: int) -> float:
        """The latest time at which the row's prompt may begin."""
        return self.requests.due.item(row)
