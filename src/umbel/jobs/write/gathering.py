"""Gathers the outputs of one input row whose continuations are rows of the workload, until all of them are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from umbel.ir.branches import Branches
from umbel.ir.choices import Chosen, Score
from umbel.ir.request import Output


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """An input row whose continuations are scored: their `scores` in the order given, the choice among them where that
    was asked for, and the tokens of the prompt and of all continuations together."""

    scores: tuple[Score, ...]
    chosen: Chosen | None
    tokens: int

    @classmethod
    def of(cls, branches: Branches, outputs: Sequence[Output]) -> ScoredRow:
        """What the outputs of a row's branches say."""
        count = len(branches.continuations)
        scores = [Score.of(one) for one in outputs]
        own, prior = scores[:count], scores[count:]
        chosen = Chosen.among(branches.choices, own, prior) if branches.chooses else None
        ends = [len(score.token_ids) for score in own]
        return cls(tuple(own), chosen, outputs[0].prompt_tokens - ends[0] + sum(ends))


@dataclass(slots=True)
class Gathering:
    """Outputs of input rows of which not all are there."""

    _open: dict[int, dict[int, Output]] = field(default_factory=dict)  # by row: by place among its rows of the workload

    def add(self, row: int, place: int, branches: Branches, output: Output) -> list[Output] | None:
        """One more output of a row; all of them, in order, once the last is there."""
        found = self._open.setdefault(row, {})
        found[place] = output
        if len(found) < branches.n_rows:
            return None
        del self._open[row]
        return [found[i] for i in range(len(found))]
