"""What happens to the rows of one plan, recorded so that it can be compared with the plan later.

A job records one part after the other: a part is one plan and as much of its run as happened, for a window of a large
input or for the rest of one after a stop. Only sums are kept, per line of the tree that `umbel plan` prints, so that a
record stays a few kilobytes whatever the rows; earlier parts are folded into one (jobs.report.sums).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs.report.sums import fold
from umbel.plan.explain.record import to_json
from umbel.plan.explain.tree import Line, lines_of_rows, shown_lines

Ints = NDArray[np.int64]

COLUMNS = ("done", "failed", "cut", "output", "expected")
CURVE_POINTS = 128  # of what happened over time; halved when full


class Recording:
    """A part of a job while it runs.

    `stats`: the engine's totals before the part.
    `record`, `live`: the store's records of earlier parts, under "plan" and "live".
    `starved_seconds`: time in which the engine had nothing to run because its rows were not tokenised yet; may be added
        to.
    """

    def __init__(
        self,
        plan: Plan,
        workload: Workload,
        stats: Stats | None = None,
        *,
        record: Mapping[str, Any] | None = None,
        live: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.seconds = 0.0
        self.starved_seconds = 0.0
        self._clock = clock
        self._start = asdict(stats or Stats())
        self._before = dict(live or {})
        self._earlier = fold(record, live, closing=True)
        lines = shown_lines(plan)
        self._line = lines_of_rows(plan.forest, lines)
        self._sums = np.zeros((len(COLUMNS), len(lines)), np.int64)
        self._ran = np.zeros(2, np.int64)  # output tokens of finished rows that no other row answers: made, expected
        self._prompt_tokens = 0
        self._prompts = np.diff(workload.offsets)
        self._alone = plan.same_as == np.arange(len(plan.same_as))
        self._expected = plan.lengths * np.array([p.n for p in workload.params], np.int64)
        self._plan = _plan_record(plan, workload, lines, self._line, self._expected)
        self._pending: list[Output] = []
        self._curve: list[list[float]] = []
        self._stride, self._ticks = 1, 0

    def plan_record(self) -> dict[str, Any]:
        """The store's record "plan", written once, when the part begins, together with `as_dict` under "live"."""
        return {"open": self._plan, "closed": self._earlier}

    def watch(self, outputs: Iterator[Output]) -> Iterator[Output]:
        """Pass on the outputs of the engine, add each of them, and count the seconds that they take to come."""
        while True:
            begin = self._clock()
            try:
                output = next(outputs, None)
            finally:
                self.seconds += self._clock() - begin
            if output is None:
                return
            self._pending.append(output)
            yield output

    def add(self, output: Output) -> None:
        """Count one finished row (`watch` does it as well)."""
        self._pending.append(output)

    def as_dict(self, stats: Stats) -> dict[str, Any]:
        """The store's record "live", written with each commit: totals over all parts by the names of Stats, and this
        part.

        `stats` are the engine's totals now.
        """
        self._settle()
        own = {name: value - self._start[name] for name, value in asdict(stats).items()}
        own["kv_peak_tokens"] = stats.kv_peak_tokens
        total = {name: self._before.get(name, 0) + value for name, value in own.items()}
        total["kv_peak_tokens"] = max(self._before.get("kv_peak_tokens", 0), stats.kv_peak_tokens)
        self._note(own)
        part = {
            "stats": own,
            "seconds": self.seconds,
            "starved_seconds": self.starved_seconds,
            "prompt_tokens": self._prompt_tokens,
            "output_tokens": int(self._ran[0]),
            "expected_output_tokens": int(self._ran[1]),
            "lines": {name: column.tolist() for name, column in zip(COLUMNS, self._sums, strict=True)},
            "curve": self._curve,
        }
        return {**total, "open": part}

    def _settle(self) -> None:
        """Add up the outputs that came since the last time, many at once."""
        outputs, self._pending = self._pending, []
        if not outputs:
            return
        rows = np.array([o.row for o in outputs], np.int64)
        made = np.array([len(o.outputs[0].token_ids) if len(o.outputs) == 1 else o.output_tokens for o in outputs])
        failed = np.array([i for i, o in enumerate(outputs) if not o.outputs], np.int64)
        cut = np.array([i for i, o in enumerate(outputs) if "length" in [c.finish_reason for c in o.outputs]], np.int64)
        expected = self._expected[rows]
        expected[failed] = 0
        line = self._line[rows]
        done, lost, ended, output, due = self._sums
        np.add.at(done, line, 1)
        np.add.at(lost, line[failed], 1)
        np.add.at(ended, line[cut], 1)
        np.add.at(output, line, made)
        np.add.at(due, line, expected)
        ran = self._alone[rows]
        self._ran += int(made[ran].sum()), int(expected[ran].sum())
        self._prompt_tokens += int(self._prompts[rows].sum())

    def _note(self, own: Mapping[str, float]) -> None:
        """Put a point on the curve of what happened: seconds, steps, tokens through the model, KV peak so far."""
        self._ticks += 1
        if self._ticks % self._stride:
            return
        tokens = own["computed_prompt_tokens"] + own["recomputed_tokens"] + own["output_tokens"]
        self._curve.append([round(self.seconds, 6), own["steps"], tokens, own["kv_peak_tokens"]])
        if len(self._curve) >= CURVE_POINTS:
            self._curve, self._stride = self._curve[1::2], self._stride * 2


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
            prompt = workload.prompt(int(plan.forest.source[line.node]))[: line.end]
            digests[i] = blake2b(prompt.tobytes(), digest_size=8).hexdigest()
            yield f"run {digests[i]}"
        else:
            yield f"{'end' if line.kind == 'end' else 'rest'} {digests[line.parent]}"
