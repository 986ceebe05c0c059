"""Which of an engine's techniques of attention a row is computed with: all of them, or those that it lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.distinct import Distinct
from umbel.ir.limits import refuse, shown
from umbel.ir.params import SamplingParams
from umbel.ir.workload import WHOLE_ANSWERS, WHOLE_PROMPTS, Workload

Flags = NDArray[np.bool_]

PROMPTS, FLOW = "prompts", "flow"


@dataclass(frozen=True, slots=True)
class RowTechniques:
    """The techniques that rows may leave out (`each`): as it was asked for (NAME:setting=value), and whose tokens read
    less by it: "prompts" for a selector of prompts, "flow" for what no row may leave out, anything else for what a
    sample draws.

    A row lists names, or what was asked for, word for word (`SamplingParams.techniques`); one that lists nothing (None)
    is computed with all of them. KV of prompts that are computed with a selector is another than KV without it, so that
    rows which differ in that share none (`Workload.scope`); all else reads the same runs, each row in its own way.
    """

    each: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """All of them, as they were asked for."""
        return tuple(asked for asked, _ in self.each)

    def check(self, params: SamplingParams) -> None:
        """Raise InvalidRequest for a row that lists a technique which the engine has not, or leaves a flow out."""
        for name in params.techniques or ():
            if name not in self.asked and name not in map(_name, self.asked):
                known = f"there are {', '.join(self.asked)}" if self.asked else "there is none"
                way = "--technique NAME with --allow-lossy gives it to a job"
                refuse("invalid_value", "techniques", f"techniques has {shown(name)}: {known}; {way}")

        for asked, kind in self.each:
            if kind == FLOW and self._is_left(asked, params):
                why = f"all rows of a job are computed as {asked!r} says: list it, or leave techniques out"
                refuse("invalid_value", "techniques", f"techniques={shown(list(params.techniques or ()))}: {why}")

    def leaves(self, params: SamplingParams, *, prompts: bool) -> bool:
        """Whether a row leaves out the technique that there is for its prompt, or for what is drawn."""
        mine = (asked for asked, kind in self.each if kind != FLOW and (kind == PROMPTS) == prompts)
        return any(self._is_left(asked, params) for asked in mine)

    @staticmethod
    def _is_left(asked: str, params: SamplingParams) -> bool:
        listed = params.techniques
        return listed is not None and asked not in listed and _name(asked) not in listed

    def left(self, params: Sequence[SamplingParams], *, prompts: bool) -> Flags | None:
        """Which rows do (`[rows]`); None where none does."""
        if not self.each:
            return None
        found = Distinct.of(params).flags(lambda one: self.leaves(one, prompts=prompts))
        return found if found.any() else None

    def put_apart(self, load: Workload) -> Workload:
        """The rows, of which those whose prompts are computed whole share no KV with others."""
        return _marked(load, self.left(load.params, prompts=True), WHOLE_PROMPTS)

    def keep_apart(self, load: Workload) -> Workload:
        """The same for what is drawn: where answers stay, as the beginning of prompts to come."""
        return _marked(load, self.left(load.params, prompts=False), WHOLE_ANSWERS)


ALL_ROWS = RowTechniques()
"""Of an engine that has none."""


def _marked(load: Workload, rows: Flags | None, bit: int) -> Workload:
    if rows is None:
        return load
    scope = np.zeros(len(load), np.int64) if load.scope is None else load.scope
    return replace(load, scope=scope | rows * np.int64(bit))


def _name(asked: str) -> str:
    return asked.partition(":")[0]
