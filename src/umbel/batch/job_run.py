"""Runs a job as it was asked for: checks its files, shows its progress, writes what belongs beside the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.batch.chosen_job import chosen_job
from umbel.batch.display import say, showing
from umbel.batch.extras import SUMMARY, TRACE, writing
from umbel.batch.job_options import JobOptions
from umbel.batch.job_setup import build_job
from umbel.jobs.paths import check_paths
from umbel.jobs.read.spool import opened
from umbel.jobs.remote import is_uri, public_name
from umbel.jobs.summary import Summary
from umbel.jobs.write.remote_output import RemoteOutput

if TYPE_CHECKING:
    from umbel.profile.recorder import Recorder


def run_job(
    asked: JobOptions,
    began: float,
    *,
    last: bool,
    closing: Callable[[Summary], Iterable[str]],
    typed: Sequence[str] = (),
) -> Summary:
    """Run a job to its end, or until it is stopped. `began` is when the user began to wait, on the clock of
    `time.monotonic`; `last` says that the process ends with the job; `closing` makes the lines that are shown at the
    end; `typed` are the words of the command behind `umbel`. Raises UmbelError."""
    asked.check()
    asked, chosen = chosen_job(asked)
    say([chosen] if chosen and not asked.output.quiet else [])
    remote = RemoteOutput(asked.output.output) if is_uri(asked.output.output or "") else None
    if remote is not None:
        remote.prepare(fresh=asked.output.fresh)
        asked = replace(asked, output=replace(asked.output, output=str(remote.local)))
    trace = _trace_path(asked)
    _check_extras(asked, trace)
    recorder = None if trace is None else _recorder(began)
    with opened(asked.sources, asked.output.target.parent) as source:
        job = build_job(asked, source, recorder, typed)
        job.began, job.last = began, last
        with showing(job.progress, quiet=asked.output.quiet, verbose=asked.output.verbose):
            summary = job.run()
    if remote is not None and summary.status != "drained":
        remote.publish()
        summary = replace(summary, output=public_name(remote.uri))
    say(closing(summary))
    write_summary(summary, asked.output.summary)
    if recorder is not None and trace is not None:
        from umbel.batch.profile import show_profile

        show_profile(recorder, trace)
    return summary


def _recorder(began: float) -> Recorder:
    from umbel.profile.recorder import Recorder

    return Recorder(int(began * 1e9))


def _trace_path(asked: JobOptions) -> Path | None:
    if asked.output.profile is None:
        return None
    from umbel.batch.profile import trace_path

    return trace_path(asked.output.profile, asked.output.target)


def _check_extras(asked: JobOptions, trace: Path | None) -> None:
    """Raise UsageError when a file that was asked for beside the answers would overwrite another."""
    job = check_paths([Path(name) for name in asked.sources if not is_uri(name)], asked.output.target)
    for option, path, begins in (("--summary", asked.output.summary, SUMMARY), ("--profile", trace, TRACE)):
        if path is not None:
            job = job.with_extra(option, path, begins)


def write_summary(result: Summary, path: Path | None) -> None:
    """Write the closing figures to a file, where one was asked for. Raises UsageError."""
    import orjson

    if path is not None:
        with writing("--summary", path) as out:
            out.write(orjson.dumps(result.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
