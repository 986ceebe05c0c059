"""Every exception Umbel raises on purpose, each with its exit code and its advice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NEAR = 80  # characters of a name that is compared with others, which takes time that grows with their square


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ' (did you mean x?)', or '' when nothing is close."""
    if len(name) > MOST_NEAR:
        return ""
    close = difflib.get_close_matches(name, [one for one in known if len(one) <= MOST_NEAR], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class UmbelError(Exception):
    """Base of all planned failures; `exit_code` is what the command line returns (README, "Command line")."""

    exit_code = 1


class UsageError(UmbelError):
    """The user asked for something that cannot be: unknown option or key, paths that clash, a missing file."""

    exit_code = 2


class ModelError(UmbelError):
    """The model directory is missing, malformed, unsafe or of an architecture that is not supported."""

    exit_code = 2


class InputError(UmbelError):
    """The input as a whole cannot be read, so no row was run."""

    exit_code = 4


class InputChanged(InputError):
    """The input is no longer what it was when the job began; what was answered before is kept."""


class EmptyInput(InputError):
    """The input holds no rows, which is more likely a wrong path than a job."""

    exit_code = 2


class StoreMismatch(UsageError):
    """A job store exists beside the output but belongs to another job."""


class StoreBusy(UsageError):
    """Another process works on the same job."""


class StoreDamaged(UmbelError):
    """The job store was damaged at rest; the message says whether running again mends it."""


class DiskFull(UmbelError):
    """Writing failed; what was committed is safe and the job can be resumed."""

    exit_code = 1


class JobStopped(UmbelError):
    """A job was stopped before its end; the same call continues it. `summary` says what was done
    (jobs.summary.Summary)."""

    exit_code = 75

    def __init__(self, summary: object, text: str = ""):
        super().__init__(text or repr(summary))
        self.summary = summary


class CapacityError(UmbelError):
    """The work does not fit this machine, whatever the order."""

    exit_code = 6


class RowFailed(UmbelError, IndexError):
    """The completion of a row that has none was asked for; the message says why it has none."""


class InvalidRequest(UmbelError):
    """One row is not acceptable; it becomes an error row and its neighbours go on.

    The fields are those of an OpenAI error object: `code` (a stable name), `param` (the field at fault or None),
    `status` (the HTTP status that a server would answer with).
    """

    def __init__(self, code: str, message: str, param: str | None = None, status: int = 400):
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status = status
