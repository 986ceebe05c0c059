"""`umbel plan`: what a run would compute, in which order, memory and time; needs no weights and no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.batch.job_options import JobOptions, ViewOptions

if TYPE_CHECKING:
    from umbel.batch.plan_view import PlanView

ONE_LINE = 400  # characters, which pages break themselves


def plan_command(job: JobOptions, view: ViewOptions = ViewOptions(), typed: Sequence[str] = ()) -> int:
    """Show the plan of a job without running it: what is computed, in which order, memory and time.

    It takes the options of umbel run, so that one line serves both; the weights are not needed.

    \f
    Examples:
      umbel plan tasks.jsonl -m demo
      umbel plan tasks.jsonl -m demo --temperature 0 --deadline 30m
      umbel plan tasks.jsonl -m demo --machine h200 --html plan.html

    Exit codes: 0 the plan was printed, 1 internal error, 2 usage (also an empty file), 4 the input cannot be read, none
    of its rows can run, or --strict found a fault, 6 a row does not fit this machine, 130 Ctrl-C, 141 the reader of the
    output left.
    """
    return show_plan(job, view, typed)


def show_plan(job: JobOptions, view: ViewOptions, typed: Sequence[str] = ()) -> int:
    """Print the plan of a job, or write it where asked; returns the exit code. Raises UmbelError.

    `typed` are the words behind `umbel`, which pages show.
    """
    # Imported when the command runs, so that --help is quick.
    from umbel.batch.terminal import show, width_of

    job.check()
    html = view.page_of(job.sources[0])
    if html is not None:
        _check_page(html, job.sources)
    shown = _viewed(job, view, typed, words=view.as_json or html is not None)
    if html is not None:
        _write_page(html, shown, job.title, show=view.open_page)
    if view.as_json:
        print(shown.as_json(), end="")
    else:
        width = width_of(sys.stdout)
        show(shown.text(width) if job.output.verbose else shown.brief(width))
    return 0


def _viewed(job: JobOptions, view: ViewOptions, typed: Sequence[str], *, words: bool) -> PlanView:
    """Plan the job; a large input says on a terminal how far its reading is."""
    from umbel.batch.planned import PlanAim, plan_job
    from umbel.cli.ticker import Ticker
    from umbel.sim.model import find_model

    config, ticker = job.config, Ticker()
    spec, directory = find_model(job.model, config.model_impl, config.generation_config)
    told = lambda rows: ticker(f"reading: {rows:,} rows")  # noqa: E731
    try:
        return plan_job(job, PlanAim(spec, directory, view.machine, view.tokenizer, typed, told), words=words)
    finally:
        ticker.clear()


def _check_page(html: Path, files: Sequence[str]) -> None:
    from umbel.batch.extras import check_page
    from umbel.jobs.remote import is_uri

    check_page(html, sources=[Path(file) for file in files if not is_uri(file)])


def _write_page(html: Path, shown: PlanView, title: str, *, show: bool) -> None:
    from umbel.batch.extras import write_page
    from umbel.plan.explain.page import plan_page

    page = plan_page(shown.record, shown.text(), f"Plan of {title}", shown.head(ONE_LINE))
    write_page(html, page, show=show)
