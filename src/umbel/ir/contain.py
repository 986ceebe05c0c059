"""The last safeguard of a row: a failure that no check predicted becomes that row's error and never ends the job."""

from __future__ import annotations

from umbel.errors import InvalidRequest, UmbelError
from umbel.ir.request import RowError


def concerns_row(error: BaseException) -> bool:
    """Whether a failure may be blamed on the current row: neither a request to stop nor an intended failure of the job.

    Panics of Rust libraries count although they are no `Exception`: pyo3 derives them from BaseException.
    """
    if isinstance(error, UmbelError):
        return isinstance(error, InvalidRequest)
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def as_refusal(error: BaseException, doing: str) -> InvalidRequest:
    """The failure as the row's error; `doing` names the act that failed. Its text depends on the kind of failure
    alone."""
    if isinstance(error, InvalidRequest):
        return error
    message = f"{type(error).__name__} while {doing} this row: no check foresaw it; other rows are not affected"
    return InvalidRequest("internal_error", message, status=500)


def row_error(error: InvalidRequest) -> RowError:
    """The exception as a record; text that is not valid Unicode is escaped, so that it can be written."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    param = None if error.param is None else _writable(error.param)
    return RowError(error.code, _writable(error.message), param, kind, error.status)


def _writable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
