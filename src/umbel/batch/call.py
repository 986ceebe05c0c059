"""`umbel.run`: the job of `umbel run` as a Python call."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from umbel.batch.declared import declared, python_name
from umbel.batch.job_options import JobOptions
from umbel.batch.job_run import run_job
from umbel.batch.keywords import job_options
from umbel.errors import JobStopped, UsageError
from umbel.jobs.summary import Summary, closing_lines

_OPTION = re.compile(r"(?<![\w/.-])--(?:[a-z][a-z-]*[a-z]|n)\b")


def run(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str,
    prompt: str | None = None,
    **options: Any,
) -> Summary:
    """Run every row of a file, or of several, through a model and write one answer for each to another file, as `umbel
    run` does.

    `prompt` builds prompts from columns: "Classify: {text}". `options` are those of `umbel run` under their names with
    underscores (temperature=0, max_tokens=64, keep=["id"], deadline="30m"); those that may be repeated take a list.
    Finished rows are kept in OUT.umbel as they come: after a crash or a stop, the same call continues, and with a
    complete output it returns at once.

    Raises UsageError for options that cannot be, ModelError, InputError and the other errors of `umbel.errors`, and
    JobStopped where Ctrl-C, SIGTERM or SIGHUP ended the job early, with what was done. Signals are left alone outside
    the main thread, where a `deadline` cannot be given.
    """
    began = time.monotonic()
    with in_names_of_python():
        sources = [source] if isinstance(source, str | os.PathLike) else source
        asked = job_options(model, [os.fspath(one) for one in sources], os.fspath(out), {"prompt": prompt, **options})
        summary = run_job(asked, began, last=False, closing=_only_notes(asked.output.quiet))
    if summary.status == "drained":
        raise JobStopped(summary)
    return summary


def _only_notes(quiet: bool) -> Callable[[Summary], Iterable[str]]:
    """The notes and warnings of a summary, which the caller may not look at; its figures are returned."""
    return (lambda summary: ()) if quiet else partial(closing_lines, quiet=True)


@contextmanager
def in_names_of_python() -> Iterator[None]:
    """A block whose UsageErrors name the options of the command line as Python does: max_tokens, not --max-tokens."""
    try:
        yield
    except UsageError as error:
        names = {name for option in declared(JobOptions) for name in option.names}
        message = _OPTION.sub(lambda found: python_name(found[0]) if found[0] in names else found[0], str(error))
        error.args = (message,)
        raise
