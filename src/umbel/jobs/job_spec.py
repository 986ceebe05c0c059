"""The description of a job: its files, how they are read, the model's vocabulary and context, and the limits of the
run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.ir.budget import Budget
from umbel.ir.stops import GRACE_SECONDS
from umbel.jobs.read.changes import HashedInput
from umbel.jobs.read.records import ReadNotes, ReadOptions
from umbel.jobs.read.source import Source


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run.

    `identity`: the job's fingerprint.
    `model`: the name in OpenAI answers.
    `width`, `context`: the model's vocabulary and positions.
    `strict`: run nothing when any row is at fault.
    `fresh`: discard an earlier run.
    `retry_failed`: run rows again that failed for lack of memory or by the model.
    `budget`: limits of this run.
    `grace`: seconds that rows near their end get after a stop.
    `watch`: notices an input that changes while it is read.
    `errors`: where rows without an answer go, None for the output.
    """

    input: Path
    output: Path
    options: ReadOptions
    identity: Mapping[str, Any]
    model: str
    width: int
    context: int
    order: str = "input"
    fresh: bool = False
    retry_failed: bool = False
    budget: Budget = field(default_factory=Budget)
    watch: HashedInput | None = None
    grace: float = GRACE_SECONDS
    errors: Path | None = None

    def source(self, notes: ReadNotes) -> Source:
        """The input, ready to be read."""
        return Source(self.input, self.options, notes, self.watch)
