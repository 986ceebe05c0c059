"""The summary of a job: the record behind the closing lines and `--summary`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from umbel.errors import UmbelError
from umbel.ir.limits import shown
from umbel.jobs.read.records import ReadNotes
from umbel.jobs.report.text import verdict
from umbel.jobs.spent import price_text
from umbel.jobs.store_reader import Totals
from umbel.plan.explain.shown import framed
from umbel.plan.explain.text import MAX_NOTES, count, exactness

LENGTH_WARNING_SHARE = 0.01
_EARLY: Mapping[str, str] = MappingProxyType({"drained": "stopped on request", "budget": "stopped by its budget"})


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """Counts of rows and tokens over the whole job, its resumed parts included.

    `status`: "complete", "already_complete", "drained" (stopped on request, to be resumed) or "budget" (stopped by its
        deadline or token budget, to be resumed).
    `prompt_tokens`: of the rows that have an answer, as if nothing was shared.
    `seconds`: of this run, by phase.
    `steps`: of the model, in which `drafted_tokens` that were proposed were checked and `accepted_tokens` came true.
    `forced_tokens`: tokens of answers that their forms left no choice of, computed several in a step.
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
    `spent`: what all runs but killed ones took, as in jobs.spent.
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
    forced_tokens: int = 0
    spent: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "\n".join(closing_lines(self, quiet=False))

    def _repr_html_(self) -> str:
        """The page of the job's report, where its store is still there; else the text."""
        from umbel.jobs.report.page import report_page
        from umbel.jobs.report.report import read_report
        from umbel.jobs.report.text import report_text

        try:
            report = read_report(Path(self.output))
        except UmbelError:
            return f"<pre>{escape(repr(self))}</pre>"
        return framed(report_page(report, report_text(report)))

    @property
    def exit_code(self) -> int:
        """0: all rows answered, 3: some failed, 5: stopped by its budget, 75: stopped on request."""
        early = {"drained": 75, "budget": 5}
        return early.get(self.status, 3 if self.failed else 0)

    def as_dict(self) -> dict[str, Any]:
        """The summary as one JSON object."""
        return asdict(self)


def warnings_of(totals: Totals, notes: ReadNotes, open_ended: int, lost: int = 0) -> tuple[str, ...]:
    """Warnings for the user about things for which no row failed; `lost` counts processes of replicas."""
    found = []
    if lost:
        who = "1 process of a replica was" if lost == 1 else f"{lost:,} processes of replicas were"
        found.append(f"{who} lost in this run, as said when it happened; the rows were given to others")
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


def closing_lines(result: Summary, *, quiet: bool) -> list[str]:
    """What became of a job, in a few lines; notes and warnings also when `quiet`."""
    lines = [] if quiet else [_outcome(result), _tokens(result), *_truth(result)]
    lines += [f"  {count:,} x {code}" for code, count in result.errors.items() if not quiet]
    lines += [f"note: {text}" for text in result.notes[:MAX_NOTES]]
    if len(result.notes) > MAX_NOTES:
        lines.append(f"note: ... and {len(result.notes) - MAX_NOTES} more (umbel report lists them with --json)")
    return lines + [f"warning: {text}" for text in result.warnings]


def _outcome(result: Summary) -> str:
    rows = f"{count(result.rows, 'row')}: {result.ok:,} answered, {result.failed:,} failed"
    if result.status in _EARLY:
        return f"{_EARLY[result.status]}; {rows}, {result.left:,} to go; run it again to continue"
    if result.status == "already_complete":
        return f"already complete, nothing to do; {rows}; {result.output}"
    kept = f" ({result.resumed:,} kept from an earlier run)" if result.resumed else ""
    return f"{rows}{kept} in {duration(sum(result.seconds.values()))}; {result.output}"


def _tokens(result: Summary) -> str:
    saved = max(0, result.prompt_tokens - result.computed_prompt_tokens)
    share = f" ({saved / result.prompt_tokens:.0%} saved by sharing)" if result.prompt_tokens and saved else ""
    computed = f"{result.computed_prompt_tokens:,} of {result.prompt_tokens:,} prompt tokens computed{share}"
    if result.computed_prompt_tokens > result.prompt_tokens:  # of rows, too, that a stop left without an answer
        computed = f"{result.computed_prompt_tokens:,} prompt tokens computed"
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    if result.starved_seconds >= 0.1:
        spent += f" ({result.starved_seconds:.1f} s of it waiting for rows to be read)"
    first = "" if result.first_token_seconds is None else f"; first token after {result.first_token_seconds:.1f} s"
    told = f"{result.output_tokens:,} tokens of answers{_unfinished(result)}"
    return f"{computed}; {told}, {exactness(result.lossy)}; {spent}{first}"


def _unfinished(result: Summary) -> str:
    """What became of the tokens of rows that are not done."""
    parts = []
    if result.kept_tokens:
        rows = count(result.kept_rows, "row")
        go_on = "goes on" if result.kept_rows == 1 else "go on"
        parts.append(f"{result.kept_tokens:,} more of {rows} kept, which {go_on} when run again")
    if result.discarded_tokens:
        why = "" if result.keeps_unfinished else ": replicas keep finished rows only"
        parts.append(f"{result.discarded_tokens:,} more of unfinished rows are lost{why}")
    return f" ({', '.join(parts)})" if parts else ""


def _truth(result: Summary) -> list[str]:
    """How near the plan came, beside which other work, and what the job cost; only for one that ran."""
    if result.status == "already_complete":
        return []
    told = ", ".join(part for part in (verdict(result.against_plan), result.spent.get("beside", "")) if part)
    cost = f"cost {price_text(result.spent)}" if result.spent.get("price") is not None else ""
    return [line for line in (told, cost) if line]


def duration(seconds: float) -> str:
    """Seconds as text: 12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
