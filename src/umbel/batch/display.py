"""A running job on stderr: a live bar on a terminal, plain lines elsewhere, closing lines at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from umbel.batch.terminal import broken, columns_of, width_of
from umbel.engine.progress_line import every
from umbel.ir.plan import Plan
from umbel.ir.tally import ReplicaTally
from umbel.jobs.progress import FirstWindow, Progress, Reading
from umbel.jobs.summary import duration
from umbel.plan.explain.text import Record, count, head_lines, note_lines, text_of, to_json
from umbel.plan.explain.whole import whole_lines

PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.25
LISTED = 8  # replicas with a line of their own
WIDE = 100  # columns of a terminal for a long bar
_PHASES = {"plan": "reading", "load": "loading the model", "run": "running", "write": "writing"}


@contextmanager
def showing(progress: Progress, *, quiet: bool, verbose: bool = False) -> Iterator[None]:
    """Show a job's plan and progress while the block runs. Nothing is shown when `quiet`."""
    if quiet:
        yield
        return
    progress.planned = partial(show_plan, verbose=verbose)
    with _live_bar(progress) if sys.stderr.isatty() else _plain_lines(progress):
        yield


@contextmanager
def _live_bar(progress: Progress) -> Iterator[None]:
    live = Live(_Bar(progress), console=Console(stderr=True), auto_refresh=False, transient=True)
    with suppress(OSError):  # a terminal that is gone ends the display, not the job
        live.start()
    try:
        with every(LIVE_SECONDS, live.refresh):
            yield
    finally:
        with suppress(OSError):
            live.stop()


@contextmanager
def _plain_lines(progress: Progress) -> Iterator[None]:
    with every(PLAIN_SECONDS, _PlainLines(progress).show):
        yield


def show_plan(plan: Plan, window: FirstWindow | None = None, rows: int | None = None, *, verbose: bool = False) -> None:
    """Print the plan of so many `rows` (None: all are single), in a few lines unless `verbose`; of a first `window`
    after what the whole input will take."""
    width, record = width_of(sys.stderr), to_json(plan)
    if rows is not None:
        record["input_rows"] = rows
    if window is not None:
        say(_whole(plan, record, window, width))
    if verbose:
        say(text_of(record, width).splitlines())
    elif window is None:
        say(head_lines(record, width))


def _whole(plan: Plan, record: Record, window: FirstWindow, width: int) -> list[str]:
    part = plan.estimates.rows / max(1, window.planned)  # a budget may let only some rows of the window begin
    token_scale = None if window.share is None else 1 / max(window.share * part, 1e-12)
    row_scale = (window.of_rows or 0) / max(1.0, window.rows * part)
    head = whole_lines(record, window.of_rows, row_scale, token_scale, width)
    return [*head, *note_lines(plan.notes, width)]


def say(lines: Iterable[str]) -> None:
    """Print lines on stderr, broken between words where it is a terminal. Where it is closed or its terminal is gone,
    the job goes on without."""
    with suppress(OSError):
        for line in broken(lines, columns_of(sys.stderr)):
            print(line, file=sys.stderr, flush=True)


class _PlainLines:
    """What is printed every few seconds; of a model that is loaded, a line for each quarter of it."""

    def __init__(self, progress: Progress):
        self._progress, self._quarter = progress, -1

    def show(self) -> None:
        reading = self._progress.reading()
        if reading.loaded is not None:
            quarter, self._quarter = self._quarter, int(4 * reading.loaded)
            if quarter == self._quarter:
                return
        told = [line_of(reading), "; ".join(replica_lines(reading.replicas))]
        print(" · ".join(filter(None, told)), file=sys.stderr, flush=True)


class _Bar:
    """Renders the current reading each time the live display refreshes."""

    def __init__(self, progress: Progress):
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        reading, bar = self._progress.reading(), 20 if options.max_width >= WIDE else 6
        pulse = reading.rows == 0 and reading.loaded is None
        share = ProgressBar(total=1.0, completed=share_done(reading), width=bar, pulse=pulse)
        grid = Table.grid(padding=(0, 1))
        grid.add_column()
        grid.add_column(no_wrap=True, overflow="ellipsis")  # of a wrapped bar the terminal would keep lines
        grid.add_row(share, line_of(reading, options.max_width - bar - 1))
        yield grid
        for line in replica_lines(reading.replicas):
            yield Text(f"  {line}", no_wrap=True, overflow="ellipsis")


def line_of(reading: Reading, width: int | None = None) -> str:
    """A reading as one line of text; for a `width`, without what is wanted least if the line is longer."""
    if reading.phase not in _PHASES:
        return "starting" if not reading.done else "done"
    if reading.phase != "run":
        loaded = "" if reading.loaded is None else f", {reading.loaded:.0%}"
        done = f", {reading.done:,} of {reading.rows:,} rows done" if reading.rows else ""
        return _PHASES[reading.phase] + loaded + done
    if reading.ending is not None:
        return f"stopping: {count(reading.ending, 'row')} near the end; Ctrl-C again ends at once"
    tokens, rate = _tokens_done(reading), f"{reading.tokens_per_second:,.0f} tokens/s"
    saved = f"{reading.saved_tokens:,} tokens saved by sharing" if reading.saved_tokens else ""
    failed = f"{reading.failed:,} failed" if reading.failed else ""
    left = "" if reading.eta_seconds is None else f"about {rounded(reading.eta_seconds)} left"
    parts = [
        f"{reading.done:,}/{reading.rows:,} rows",
        tokens,
        rate,
        saved,
        failed,
        rounded(reading.elapsed_seconds),
        left,
    ]
    for least in ("", saved, rate, tokens):
        parts = [part for part in parts if part and part != least]
        line = " · ".join(parts)
        if width is None or len(line) <= width:
            break
    return line


def replica_lines(replicas: Sequence[ReplicaTally]) -> Iterator[str]:
    """What each of several replicas does, a line for each of the first ones, and those that are not listed counted."""
    for one in replicas[:LISTED]:
        started = f", started {count(one.restarts, 'time')} again" if one.restarts else ""
        where = f" on {one.on}" if one.on else ""
        done = f"{count(one.rows, 'row')}, {count(one.output_tokens, 'token')}"
        yield f"replica {one.number}{where} {one.state}: {done}{started}"
    if rest := replicas[LISTED:]:
        states = Counter(one.state for one in rest)
        yield f"{len(rest):,} more: {', '.join(f'{n:,} {state}' for state, n in states.items())}"


def _tokens_done(reading: Reading) -> str:
    if reading.expected_tokens is None:
        return f"{reading.output_tokens:,} tokens"
    return f"{reading.output_tokens:,} of about {max(reading.expected_tokens, reading.output_tokens):,.0f} tokens"


def share_done(reading: Reading) -> float:
    """How much of the job is done: by time, where it is known how much is left, else by rows. While the model is
    loaded, how much of it is there."""
    if reading.loaded is not None:
        return reading.loaded
    if reading.eta_seconds is None:
        return reading.done / max(1, reading.rows)
    return reading.elapsed_seconds / max(reading.elapsed_seconds + reading.eta_seconds, 1e-9)


def rounded(seconds: float) -> str:
    """Seconds that are not known to the tenth, as text."""
    return duration(seconds) if seconds >= 60 else f"{seconds:.0f} s"
