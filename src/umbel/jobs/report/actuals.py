"""What happens to the rows of a job's plans, recorded so that it can be compared with the plans later.

A job records one part after the other: a part is one plan and as much of its run as happened, for a window of a large
input or for the rest of one after a stop. The next part may begin before the last row of one has ended; parts that are
open together are recorded as one plan. Only sums are kept, per line of the tree that `umbel plan` prints, so that a
record stays a few kilobytes whatever the rows; parts that are over are folded into one (jobs.report.sums).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.tally import ReplicaTally, added_tallies
from umbel.ir.workload import Workload
from umbel.jobs.report.lengths import EDGES, KINDS, counted
from umbel.jobs.report.sums import fold, joined_plans
from umbel.plan.explain.record import to_json
from umbel.plan.explain.tree import Line, lines_of_rows, shown_lines
from umbel.plan.explain.words import Spell, no_words, places_of, put_words

Ints = NDArray[np.int64]

COLUMNS = ("done", "failed", "cut", "output", "expected")
COURSE_POINTS = 128  # of what happened over time; halved when full
POINT_SECONDS = 0.05  # between two points at first, twice as long each time that they are halved


class OpenPart:
    """A plan whose rows run: `plan` is its record, `sums` (`[COLUMNS, lines]`) what has happened to its rows, `ran` the
    output tokens, made and expected, of finished rows that no other row answers, `prompt_tokens` those of finished
    rows, `lengths` (`[planned and answered, stretches]`) how many of their samples were how long, and `reasons` why
    these ended."""

    def __init__(self, plan: Plan, workload: Workload, spell: Spell = no_words):
        lines = shown_lines(plan)
        self._line = lines_of_rows(plan.forest, lines)
        self._prompts = np.diff(workload.offsets)
        self._alone = plan.same_as == np.arange(len(plan.same_as))
        self._expected = plan.lengths * np.array([p.n for p in workload.params], np.int64)
        self._pending: list[Output] = []
        self._lengths = plan.lengths
        self.plan = _plan_record(plan, workload, lines, self._line, self._expected)
        put_words(self.plan["tree"], lines, plan, workload, spell)
        self.sums = np.zeros((len(COLUMNS), len(lines)), np.int64)
        self.ran = np.zeros(2, np.int64)
        self.prompt_tokens = 0
        self.lengths = np.zeros((len(KINDS), len(EDGES)), np.int64)
        self.reasons: Counter[str] = Counter()

    @property
    def whole(self) -> bool:
        """Whether all rows are done, of those that were added up."""
        return bool(self.sums[0].sum() >= len(self._prompts))

    def add(self, output: Output) -> None:
        """Count one finished row, the next time that is added up."""
        self._pending.append(output)

    def settle(self) -> None:
        """Add up the outputs that came since the last time, many at once."""
        outputs, self._pending = self._pending, []
        if not outputs:
            return
        rows = np.array([o.row for o in outputs], np.int64)
        made = np.array([len(o.outputs[0].token_ids) if len(o.outputs) == 1 else o.output_tokens for o in outputs])
        failed = np.array([i for i, o in enumerate(outputs) if not o.outputs], np.int64)
        cut = np.array([i for i, o in enumerate(outputs) if o.cut], np.int64)
        expected = self._expected[rows]
        expected[failed] = 0
        line = self._line[rows]
        done, lost, ended, output, due = self.sums
        np.add.at(done, line, 1)
        np.add.at(lost, line[failed], 1)
        np.add.at(ended, line[cut], 1)
        np.add.at(output, line, made)
        np.add.at(due, line, expected)
        ran = self._alone[rows]
        self.ran += int(made[ran].sum()), int(expected[ran].sum())
        self.prompt_tokens += int(self._prompts[rows].sum())
        self._count_samples([o for o in outputs if o.outputs])

    def _count_samples(self, outputs: list[Output]) -> None:
        """Count the samples of rows that have an answer, by their length and by why they ended; not those that were to
        have no tokens, as of prompts that are scored."""
        rows = np.array([o.row for o in outputs], np.int64)
        planned = np.repeat(self._lengths[rows], [len(o.outputs) for o in outputs])
        answered = np.array([len(c.token_ids) for o in outputs for c in o.outputs], np.int64)
        wrote = (planned > 0) | (answered > 0)
        self.lengths += counted(planned[wrote]), counted(answered[wrote])
        reasons = [c.finish_reason for o in outputs for c in o.outputs]
        self.reasons.update(reasons if wrote.all() else np.array(reasons)[wrote].tolist())


class Recording:
    """The parts of a job that one run of it makes.

    `stats`: the engine's totals before the run.
    `record`, `live`: the store's records of earlier parts, under "plan" and "live".
    `starved_seconds`: time in which the engine had nothing to run because its rows were not tokenised yet; may be added
        to.
    `spell`: gives the text of token ids.
    `parts`: those that have begun.
    """

    def __init__(
        self,
        stats: Stats | None = None,
        *,
        record: Mapping[str, Any] | None = None,
        live: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        spell: Spell = no_words,
    ):
        self.seconds = 0.0  # since the last time that parts were over, as `starved_seconds` and the course
        self.starved_seconds = 0.0
        self._clock = clock
        self._start = self._since = asdict(stats or Stats())
        self._before = dict(live or {})
        self._earlier = fold(record, live, closing=True)
        self._open: dict[int, OpenPart] = {}
        self.parts = 0
        self._answered = 0  # tokens of finished rows of parts that are over
        self._spell = spell
        self._waiting: float | None = None  # since when, for the engine's next output
        self._course: list[list[float]] = []
        self._gap, self._next_point = POINT_SECONDS, 0.0

    def begin(self, plan: Plan, workload: Workload, stats: Stats | None = None) -> int:
        """A further part begins, and those whose rows are all done are over; returns its number, from 0 on. `stats` are
        the engine's totals now."""
        for part in self._open.values():
            part.settle()
        over = [number for number, part in self._open.items() if part.whole]
        if over:
            self._close(over, stats or Stats())
        self._open[self.parts] = OpenPart(plan, workload, self._spell)
        self.parts += 1
        return self.parts - 1

    def _close(self, numbers: list[int], stats: Stats) -> None:
        """Fold parts that are over. What the engine did meanwhile for parts that stay open is counted with theirs."""
        parts = [self._open.pop(number) for number in numbers]
        self._answered += sum(int(part.ran[0]) for part in parts)
        record = {"open": joined_plans([part.plan for part in parts]), "closed": self._earlier}
        self._earlier = fold(record, {"open": self._part(parts, self._own(stats, self._since))}, closing=True)
        self._since, self.seconds, self.starved_seconds = asdict(stats), 0.0, 0.0
        self._course, self._gap, self._next_point = [], POINT_SECONDS, 0.0

    @property
    def answered_tokens(self) -> int:
        """Tokens of the rows that finished in this run, as last added up; twins count once."""
        return self._answered + sum(int(part.ran[0]) for part in self._open.values())

    def plan_record(self) -> dict[str, Any]:
        """The store's record "plan", written when a part begins, together with `as_dict` under "live"."""
        return {"open": joined_plans([part.plan for part in self._open.values()]), "closed": self._earlier}

    def watch(self, outputs: Iterator[tuple[int, Output]]) -> Iterator[tuple[int, Output]]:
        """Pass on the outputs of the engine, each with the number of its part; add each of them, and count the seconds
        that they take to come."""
        while True:
            begin = self._waiting = self._clock()
            try:
                found = next(outputs, None)
            finally:
                self.seconds, self._waiting = self.seconds + self._clock() - begin, None
            if found is None:
                return
            self._open[found[0]].add(found[1])
            yield found

    def add(self, output: Output, part: int = 0) -> None:
        """Count one finished row (`watch` does it as well)."""
        self._open[part].add(output)

    def as_dict(self, stats: Stats, replicas: Sequence[ReplicaTally] = ()) -> dict[str, Any]:
        """The store's record "live", written with each commit: totals over all parts by the names of Stats, those of
        each of several `replicas`, and what is open.

        `stats` are the engine's totals now, and what each replica has done.
        """
        for part in self._open.values():
            part.settle()
        own = self._own(stats, self._start)
        total = {name: self._before.get(name, 0) + value for name, value in own.items()}
        total["kv_peak_tokens"] = max(self._before.get("kv_peak_tokens", 0), stats.kv_peak_tokens)
        self.sample(lambda: stats)
        tallies = added_tallies(self._before.get("replicas", ()), replicas)
        if tallies:
            total["replicas"] = tallies
        return {**total, "open": self._part(list(self._open.values()), self._own(stats, self._since))}

    def _own(self, stats: Stats, start: Mapping[str, float]) -> dict[str, Any]:
        """What the engine has done since its totals were `start`."""
        own = {name: value - start[name] for name, value in asdict(stats).items()}
        return {**own, "kv_peak_tokens": stats.kv_peak_tokens}

    def _part(self, parts: list[OpenPart], own: Mapping[str, Any]) -> dict[str, Any]:
        """Some parts as one."""
        sums = np.concatenate([part.sums for part in parts], axis=1) if parts else np.zeros((len(COLUMNS), 0), np.int64)
        return {
            "stats": own,
            "seconds": self.seconds,
            "starved_seconds": self.starved_seconds,
            "prompt_tokens": sum(part.prompt_tokens for part in parts),
            "output_tokens": sum(int(part.ran[0]) for part in parts),
            "expected_output_tokens": sum(int(part.ran[1]) for part in parts),
            "lines": {name: column.tolist() for name, column in zip(COLUMNS, sums, strict=True)},
            "course": [*self._course, self._point(own)],
            "lengths": _summed_lengths(parts),
            "reasons": dict(sum((part.reasons for part in parts), Counter())),
        }

    def sample(self, stats: Callable[[], Stats]) -> None:
        """Put a point on the course, where it is time for one; cheap enough to be called at every step."""
        elapsed = self._elapsed()
        if elapsed < self._next_point:
            return
        self._course.append(self._point(self._own(stats(), self._since)))
        if len(self._course) >= COURSE_POINTS - 1:
            self._course, self._gap = self._course[1::2], self._gap * 2
        self._next_point = elapsed + self._gap

    def _elapsed(self) -> float:
        """Seconds of the engine, with those of the output that is being waited for."""
        return self.seconds + (0.0 if self._waiting is None else self._clock() - self._waiting)

    def _point(self, own: Mapping[str, float]) -> list[float]:
        """Where a run is: seconds, steps, tokens through the model, and the tokens held in KV summed over steps."""
        tokens = own["computed_prompt_tokens"] + own["recomputed_tokens"] + own["output_tokens"]
        return [round(self._elapsed(), 6), own["steps"], tokens, own["kv_token_steps"]]


def _summed_lengths(parts: list[OpenPart]) -> dict[str, list[int]]:
    total = sum((part.lengths for part in parts), np.zeros((len(KINDS), len(EDGES)), np.int64))
    return dict(zip(KINDS, total.tolist(), strict=True))


def _plan_record(plan: Plan, workload: Workload, lines: tuple[Line, ...], line: Ints, expected: Ints) -> dict[str, Any]:
    """The plan as JSON, its lines with a key that names them in other plans too, and the output expected of them."""
    record = to_json(plan)
    output = np.bincount(line, expected, len(lines)).astype(np.int64).tolist()
    for entry, key, tokens in zip(record["tree"], _keys(plan, workload, lines), output, strict=True):
        entry |= {"key": key, "output_tokens": tokens}
    return record


def _keys(plan: Plan, workload: Workload, lines: tuple[Line, ...]) -> Iterator[str]:
    """A key for each line: a digest of the tokens that its rows share, and the kind of line."""
    digests = {-1: ""}
    for i, line in enumerate(lines):
        if line.kind == "run":
            row = int(plan.forest.source[line.node])
            prompt = workload.prompt(row)[: max(line.end - places_of(plan, workload, row), 0)]
            digests[i] = blake2b(prompt.tobytes(), digest_size=8).hexdigest()
            yield f"run {digests[i]}"
        else:
            yield f"{'end' if line.kind == 'end' else 'rest'} {digests[line.parent]}"
