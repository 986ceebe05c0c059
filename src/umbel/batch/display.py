"""A running job on stderr: a live bar on a terminal, plain lines elsewhere, closing lines at the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import MappingProxyType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from umbel.ir.plan import Plan
from umbel.jobs.progress import Progress, Reading
from umbel.jobs.report.text import verdict
from umbel.jobs.summary import Summary
from umbel.plan.explain.text import MAX_NOTES, count, exactness, head_lines

PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.25
_PHASES = {"plan": "reading", "load": "loading the model", "run": "running", "write": "writing"}


_EARLY = MappingProxyType({"drained": "stopped on request", "budget": "stopped by its budget"})


@contextmanager
def showing(progress: Progress, *, quiet: bool) -> Iterator[None]:
    """Show a job's plan and progress while the block runs. Nothing is shown when `quiet`."""
    if quiet:
        yield
        return
    progress.planned = show_plan
    with _live_bar(progress) if sys.stderr.isatty() else _plain_lines(progress):
        yield


@contextmanager
def _live_bar(progress: Progress) -> Iterator[None]:
    live = Live(_Bar(progress), console=Console(stderr=True), auto_refresh=False, transient=True)
    with suppress(OSError):  # a terminal that is gone ends the display, not the job
        live.start()
    try:
        with _every(LIVE_SECONDS, live.refresh):
            yield
    finally:
        with suppress(OSError):
            live.stop()


@contextmanager
def _plain_lines(progress: Progress) -> Iterator[None]:
    with _every(PLAIN_SECONDS, lambda: print(line_of(progress.reading()), file=sys.stderr, flush=True)):
        yield


@contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` again and again in a thread that ends before the block does: one that outlived it could hold the model
    while the interpreter shuts down. It ends early when the terminal is gone."""
    over = threading.Event()

    def work() -> None:
        with suppress(OSError):
            while not over.wait(seconds):
                act()

    thread = threading.Thread(target=work, name="umbel-progress")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def show_plan(plan: Plan) -> None:
    """Print the plan in a few lines."""
    say(head_lines(plan))


def say(lines: Iterable[str]) -> None:
    """Print lines on stderr. Where it is closed or its terminal is gone, the job goes on without."""
    with suppress(OSError):
        for line in lines:
            print(line, file=sys.stderr, flush=True)


class _Bar:
    """Renders the current reading each time the live display refreshes."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def __rich__(self) -> RenderableType:
        reading = self._progress.reading()
        grid = Table.grid(padding=(0, 1))
        share = ProgressBar(total=1.0, completed=share_done(reading), width=20, pulse=reading.rows == 0)
        grid.add_row(share, line_of(reading))
        return grid


def line_of(reading: Reading) -> str:
    """A reading as one line of text."""
    if reading.phase not in _PHASES:
        return "starting"
    if reading.phase != "run":
        return _PHASES[reading.phase] + (f", {reading.done:,} of {reading.rows:,} rows done" if reading.rows else "")
    if reading.ending is not None:
        return f"stopping: {count(reading.ending, 'row')} near the end; Ctrl-C again ends at once"
    parts = [f"{reading.done:,}/{reading.rows:,} rows", _tokens_done(reading)]
    parts.append(f"{reading.tokens_per_second:,.0f} tokens/s")
    if reading.saved_tokens:
        parts.append(f"{reading.saved_tokens:,} tokens saved by sharing")
    if reading.failed:
        parts.append(f"{reading.failed:,} failed")
    parts.append(rounded(reading.elapsed_seconds))
    if reading.eta_seconds is not None:
        parts.append(f"about {rounded(reading.eta_seconds)} left")
    return " · ".join(parts)


def _tokens_done(reading: Reading) -> str:
    if reading.expected_tokens is None:
        return f"{reading.output_tokens:,} tokens"
    return f"{reading.output_tokens:,} of about {max(reading.expected_tokens, reading.output_tokens):,.0f} tokens"


def closing_lines(result: Summary, *, quiet: bool) -> list[str]:
    """The lines printed at the end; notes and warnings also when `quiet`."""
    lines = [] if quiet else [_outcome(result), _tokens(result), *_truth(result)]
    lines += [f"  {count:,} x {code}" for code, count in result.errors.items() if not quiet]
    lines += [f"note: {text}" for text in result.notes[:MAX_NOTES]]
    if len(result.notes) > MAX_NOTES:
        lines.append(f"note: ... and {len(result.notes) - MAX_NOTES} more (umbel report lists them with --json)")
    return lines + [f"warning: {text}" for text in result.warnings]


def _outcome(result: Summary) -> str:
    rows = f"{count(result.rows, 'row')}: {result.ok:,} answered, {result.failed:,} failed"
    if result.status in _EARLY:
        return f"{_EARLY[result.status]}; {rows}, {result.left:,} to go; run the same command again to continue"
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
    told = f"{result.output_tokens:,} tokens out{_unfinished(result)}"
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
    """How near the plan came; only for a job that ran."""
    told = verdict(result.against_plan) if result.status != "already_complete" else ""
    return [told] if told else []


def share_done(reading: Reading) -> float:
    """How much of the job is done: by time, where it is known how much is left, else by rows."""
    if reading.eta_seconds is None:
        return reading.done / max(1, reading.rows)
    return reading.elapsed_seconds / max(reading.elapsed_seconds + reading.eta_seconds, 1e-9)


def rounded(seconds: float) -> str:
    """Seconds that are not known to the tenth, as text."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.0f} s"


def duration(seconds: float) -> str:
    """Seconds as text: 12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
