"""A command as a process: its exit code shows how it was stopped, from its first moment to its last; its text suits the
terminal; there is no traceback where the reader of its output leaves.

Imported before anything else of a command, so it imports next to nothing.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
from types import MappingProxyType

from umbel.jobs.signals import STOPPED, STOPS, leave

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

FAILED, READER_LEFT = 1, 141  # exit codes: output that cannot be written; a pipe whose reader is gone (128 + SIGPIPE)
_ASCII = MappingProxyType({"─": "-", "–": "-", "├": "|", "└": "`", "│": "|", "×": "x", "·": "-", "…": "..."})


def await_stops(*, resumable: bool) -> None:
    """Let SIGTERM, SIGHUP and Ctrl-C end this process immediately and without a traceback from now on: with 128 and the
    number of the signal, or as a job that is to be resumed. A command that has something to clean up replaces these
    handlers."""

    def end(number: int, frame: FrameType | None) -> None:
        if resumable:
            leave(STOPPED, "stopped before anything was run; run the same command again")
        leave(128 + number, f"stopped by {signal.Signals(number).name}")

    for number in STOPS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which nohup asks for
            signal.signal(number, end)


def show_what_can_be_shown() -> None:
    """Where an output's encoding lacks a character, write its nearest in ASCII or its number, instead of failing."""
    codecs.register_error("umbel", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="umbel")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(written), error.end


def _unwritten(error: OSError) -> int:
    """The exit code when stdout cannot be written, with a message unless the reader has left."""
    if isinstance(error, BrokenPipeError):
        return READER_LEFT
    print(f"umbel: stdout: {error.strerror or error}", file=sys.stderr)
    return FAILED


def finish(code: int) -> int:
    """Flush the last output, after which no signal changes how this ended; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left goes nowhere when Python ends
            if stream is sys.stdout:
                code = code or _unwritten(error)
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    if code == STOPPED:
        os._exit(code)  # what a stop broke off, half an import say, is not taken down in order: that could crash
    return code
