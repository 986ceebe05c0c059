"""`umbel run`: a file of prompts in, a file of answers out, resumable at any moment."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from umbel.batch.declared import Option
from umbel.batch.job_options import JobOptions, ViewOptions
from umbel.cli.process import await_stops


def run_command(
    job: JobOptions,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan, as umbel plan does, and run nothing.")] = False,
    view: ViewOptions = ViewOptions(),
    own_process: bool = False,
    typed: Sequence[str] = (),
) -> int:
    """Run every row of FILE, or of several, through a model and write one answer per row.

    Every input row gives exactly one output row, an answer or a named error. Finished rows are kept in OUTPUT.umbel as
    they come: after a crash or a stop, the same command continues. With -o - they go to stdout as they come, and are
    kept nowhere.

    \f
    Examples:
      umbel run tasks.jsonl -o answers.jsonl -m demo --temperature 0
      umbel run mail.csv -o labels.parquet -m Qwen/Qwen3-0.6B --chat --prompt 'Spam or not? {body}' --max-tokens 3
      umbel run tasks.jsonl -o answers.jsonl -m demo --deadline 30m
      tail -f tasks.jsonl | umbel run - -o - -m demo --order finish | jq .text

    Exit codes: 0 all rows answered, 1 internal error, 2 usage (also an empty file), 3 some or all rows failed, 4 the
    input cannot be read, ten or more rows fail alike and none can run, or --strict found a fault (nothing was run), 5
    stopped by --deadline or --max-output-tokens-total (the output has an error row for each row that was not run; run
    again to go on), 6 does not fit this machine, 75 stopped by Ctrl-C, SIGTERM or SIGHUP (run again to go on), 130 a
    second Ctrl-C. With -o -: 130 or 143 stopped, 141 the reader of the answers left.
    """
    if dry_run:
        from umbel.cli.plan import show_plan

        return show_plan(job, view, typed)
    view.check_unused()
    return _run(job, typed, own_process=own_process)


def _run(job: JobOptions, typed: Sequence[str], *, own_process: bool) -> int:
    """Run the job. Times count from the start of the process where it exists for this command only."""
    from umbel.batch.job_run import run_job
    from umbel.jobs.paths import is_streamed
    from umbel.jobs.summary import closing_lines

    began = process_start() if own_process else time.monotonic()
    closing = partial(closing_lines, quiet=job.output.quiet)
    if job.output.output is not None and is_streamed(job.output.target):
        from umbel.batch.stream_run import run_stream

        if own_process:
            await_stops(resumable=False)
        return run_stream(job, began, closing).exit_code
    return run_job(job, began, last=own_process, closing=closing, typed=typed).exit_code


def process_start() -> float:
    """When this process began, on the clock of `time.monotonic`; now, where the system does not report it."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = 0.0
    return time.monotonic() - max(0.0, age)
