"""The description of a job: its files, how they are read, the model's vocabulary and context, and the limits of the
run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.ir.budget import Budget
from umbel.ir.pooling import WRITER, Pooler
from umbel.ir.soft_prompt import NO_SOFT, SoftPrompts
from umbel.ir.stops import GRACE_SECONDS
from umbel.jobs.paths import JobPaths, check_paths
from umbel.jobs.read.changes import HashedInput
from umbel.jobs.read.inputs import Inputs
from umbel.jobs.read.prepare import TextEncoder, WindowBuilder
from umbel.jobs.read.records import ReadNotes, ReadOptions
from umbel.jobs.read.source import Source
from umbel.jobs.read.source_files import SourceFiles, open_source
from umbel.jobs.write.formats.named import format_of
from umbel.jobs.write.publish import check_files


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run.

    `identity`: the job's fingerprint.
    `model`: the name in OpenAI answers.
    `width`, `context`, `bos`: the model's vocabulary and positions, and the token that begins its texts.
    `pooler`: what the model gives instead of answers.
    `soft`: the names of its adapters, and their soft prompts.
    `strict`: run nothing when any row is at fault.
    `fresh`: discard an earlier run.
    `retry_failed`: run rows again that failed for lack of memory or by the model.
    `budget`: limits of this run.
    `grace`: seconds that rows near their end get after a stop.
    `watch`: notice files of the input that change while they are read.
    `errors`: where rows without an answer go, None for the output.
    `price`: of an hour of the machine, None where it is not asked what the job costs.
    """

    input: Inputs
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
    watch: tuple[HashedInput, ...] = ()
    grace: float = GRACE_SECONDS
    errors: Path | None = None
    price: float | None = None
    bos: int | None = None
    pooler: Pooler = WRITER
    soft: SoftPrompts = NO_SOFT

    def source(self, notes: ReadNotes) -> Source | SourceFiles:
        """The input, ready to be read."""
        return open_source(self.input, self.options, notes, self.watch)

    def builder(self, tokenizer: TextEncoder, check: Callable[[], None], notes: ReadNotes) -> WindowBuilder:
        """What makes windows of the rows; `check` may end its work."""
        more = check, self.bos, notes, self.pooler, self.soft
        return WindowBuilder(tokenizer, self.width, self.context, *more)

    def checked_paths(self) -> JobPaths:
        """The files of the job. Raises UsageError when one would overwrite another, an output has the name of no
        format, or columns of several files have types that one typed output cannot hold."""
        paths = check_paths([file.path for file in self.input], self.output)
        check_files(paths, self.output, self.errors)
        if len(self.input) > 1 and any(format_of(path).is_typed for path in (self.output, self.errors) if path):
            self.source(ReadNotes()).kinds()
        return paths
