"""`umbel run`: a file of prompts in, a file of answers out, resumable at any moment."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from umbel.cli.arguments import Option
from umbel.cli.job_options import JobOptions, ViewOptions
from umbel.errors import UsageError

if TYPE_CHECKING:
    from umbel.jobs.summary import Summary


def run_command(
    job: JobOptions,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan, as umbel plan does, and run nothing.")] = False,
    view: ViewOptions = ViewOptions(),
    own_process: bool = False,
) -> int:
    """Run every row of FILE through a model and write one answer per row.

    Every input row gives exactly one output row, an answer or a named error. Finished rows are kept in OUTPUT.umbel as
    they come: after a crash or a stop, the same command continues.

    \f
    Examples:
      umbel run tasks.jsonl -o answers.jsonl -m demo --temperature 0
      umbel run mail.csv -o labels.parquet -m Qwen/Qwen3-0.6B --chat --prompt 'Spam or not? {body}' --max-tokens 3
      umbel run tasks.jsonl -o answers.jsonl -m demo --deadline 30m

    Exit codes: 0 all rows answered, 1 internal error, 2 usage (also an empty file), 3 some or all rows failed, 4 the
    input cannot be read, or --strict found a fault (nothing was run), 5 stopped by --deadline or
    --max-output-tokens-total (the output has an error row for each row that was not run; run again to go on), 6 does
    not fit this machine, 75 stopped by Ctrl-C, SIGTERM or SIGHUP (run again to go on), 130 a second Ctrl-C.
    """
    job.check()
    if dry_run:
        from umbel.cli.plan import show_plan

        return show_plan(job, view)
    view.check_unused()
    if job.output.output is None:
        raise UsageError("-o/--output is missing; see umbel run --help")
    paths = {"input": job.source, "output": job.output.output, "summary": job.output.summary}
    paths["trace"] = _trace_path(job.output.profile, job.output.output)
    _check_extras(paths)
    return _run(job, paths, own_process=own_process)


def _run(asked: JobOptions, paths: dict[str, Any], *, own_process: bool) -> int:
    """Run the job. Times count from the start of the process where it exists for this command only."""
    from umbel.cli.display import closing_lines, say, showing
    from umbel.cli.job_setup import build_job
    from umbel.ir.budget import seconds_of
    from umbel.jobs.read.spool import readable

    recorder, began = None, process_start() if own_process else time.monotonic()
    if paths["trace"] is not None:
        from umbel.profile.recorder import Recorder

        recorder = Recorder(int(began * 1e9))
    with readable(paths["input"], paths["output"].parent) as source:
        built = build_job(
            *(asked.config, asked.sampling.params(), asked.reading, source, paths["output"]),
            **{name: getattr(asked.output, name) for name in ("order", "fresh", "retry_failed", "errors")},
            budget=asked.budget.budget(),
            grace=seconds_of(asked.budget.grace, "--grace"),
            profile=recorder,
        )
        built.began, built.last = began, own_process
        with showing(built.progress, quiet=asked.output.quiet):
            result = built.run()
    say(closing_lines(result, quiet=asked.output.quiet))
    _write_summary(result, paths["summary"])
    if recorder is not None:
        from umbel.cli.profile import show_profile

        show_profile(recorder, paths["trace"])
    return result.exit_code


def _trace_path(asked: str | None, output: Path) -> Path | None:
    if asked is None:
        return None
    from umbel.cli.profile import trace_path

    return trace_path(asked, output)


def _check_extras(paths: dict[str, Any]) -> None:
    """Raise UsageError when a file that was asked for beside the answers would overwrite another."""
    from umbel.cli.extras import SUMMARY, TRACE
    from umbel.jobs.paths import check_paths

    job = check_paths(paths["input"], paths["output"])
    for option, path, begins in (("--summary", paths["summary"], SUMMARY), ("--profile", paths["trace"], TRACE)):
        if path is not None:
            job = job.with_extra(option, path, begins)


def process_start() -> float:
    """When this process began, on the clock of `time.monotonic`; now, where the system does not report it."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = 0.0
    return time.monotonic() - max(0.0, age)


def _write_summary(result: Summary, path: Path | None) -> None:
    import orjson

    from umbel.cli.extras import writing

    if path is not None:
        with writing("--summary", path) as out:
            out.write(orjson.dumps(result.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
