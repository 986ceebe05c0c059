"""The summary of a job: the record behind the closing lines and `--summary`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from umbel.ir.limits import shown
from umbel.jobs.read.records import ReadNotes
from umbel.jobs.store_reader import Totals

LENGTH_WARNING_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of rows and tokens over the whole job, its resumed parts included.

    `status`: "complete", "already_complete", "drained" (stopped on request, to be resumed) or "budget" (stopped by its
        deadline or token budget, to be resumed).
    `prompt_tokens`: of the rows that have an answer, as if nothing was shared.
    `seconds`: of this run, by phase.
    `steps`: of the model, in which `drafted_tokens` that were proposed were checked and `accepted_tokens` came true.
    `errors`: failed rows by code.
    `left`: rows that have no result yet.
    `starved_seconds`: time in which the engine waited for rows to be tokenised.
    `first_token_seconds`: from the start of the job (for a command of its process) to the first token of this run; None
        when nothing was run.
    `kept_rows`, `kept_tokens`: rows that are not done of which something is kept, and how much: they go on from there.
    `keeps_unfinished`: whether the engine can take rows out before their end; replicas cannot.
    `discarded_tokens`: generated in this run for rows that a stop left unfinished, and not kept.
    `against_plan`: figures of the whole job beside those of its plan, as in jobs.report.
    `exact`, `lossy`: whether no technique in use may change answers, and the names of those that may.
    `notes`: texts for the user: of the model (ir.plan.Plan), then of the input (jobs.read.records.ReadNotes).
    """

    status: str
    rows: int
    ok: int
    failed: int
    resumed: int
    prompt_tokens: int
    computed_prompt_tokens: int
    recomputed_tokens: int
    output_tokens: int
    preemptions: int
    ended_by_length: int
    seconds: Mapping[str, float]
    errors: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    output: str = ""
    sha256: str | None = None
    left: int = 0
    starved_seconds: float = 0.0
    first_token_seconds: float | None = None
    discarded_tokens: int = 0
    keeps_unfinished: bool = True
    kept_rows: int = 0
    kept_tokens: int = 0
    against_plan: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    lossy: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def exit_code(self) -> int:
        """0: all rows answered, 3: some failed, 5: stopped by its budget, 75: stopped on request."""
        early = {"drained": 75, "budget": 5}
        return early.get(self.status, 3 if self.failed else 0)

    def as_dict(self) -> dict[str, Any]:
        """The summary as one JSON object."""
        return asdict(self)


def warnings_of(totals: Totals, notes: ReadNotes, open_ended: int) -> tuple[str, ...]:
    """Warnings for the user about things for which no row failed."""
    found = []
    answered = totals.rows - totals.failed
    if totals.cut > LENGTH_WARNING_SHARE * max(1, answered):
        share = totals.cut / answered
        free = f"; {open_ended:,} rows set no max_tokens and may run to the context's end" if open_ended else ""
        found.append(f"{totals.cut:,} of {answered:,} rows ({share:.1%}) ended by length, so may be cut off{free}")
    if "damaged_input" in totals.errors:
        found.append("the input is damaged or cut: what lies behind the last row that was read is lost")
    for name, rows in sorted(notes.ignored_fields.items(), key=lambda item: -item[1])[:20]:
        found.append(f"field {shown(name)} was ignored in {rows:,} row{'' if rows == 1 else 's'}{_meant(name)}")
    return tuple(found)


def _meant(name: str) -> str:
    from difflib import get_close_matches

    from umbel.ir.body import EFFECTIVE_FIELDS

    close = get_close_matches(name, sorted(EFFECTIVE_FIELDS), n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close else ""
