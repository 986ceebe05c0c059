"""SIGTERM, SIGHUP, Ctrl-C and the end of a job's time: stop soon, commit what is finished, leave the job to be resumed.

Imported before anything else of a command, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import NoReturn

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED, INTERRUPTED = 75, 130  # exit codes: stopped, to be resumed; a second Ctrl-C
AGAIN_SECONDS = 0.001  # after which an exception that Python could only print is raised again
_SHOW_CURSOR = "\x1b[?25h\r\n"


class Drain(BaseException):
    """Raised in the main thread where it stands when the process is asked to stop.

    Not an Exception, so that code which contains failures of single rows lets it through.
    """


class OutOfTime(BaseException):
    """Raised in the main thread where it stands when the time set by `StopSignal.limit` is over."""


class Cancelled(OutOfTime):
    """Raised in the thread of a job when the rows that are left are not wanted any more."""


def leave(code: int, message: str) -> NoReturn:
    """End this process immediately, with a message on stderr: for a handler at a moment when there is nothing to clean
    up, or no time for it."""
    cursor = _SHOW_CURSOR if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{cursor}umbel: {message}\n".encode())
    os._exit(code)


class StopSignal:
    """While entered, the first SIGTERM, SIGHUP or Ctrl-C raises Drain within `listening`, except inside `shielded`,
    where it waits for the end: what is shielded for long looks at `wanted` and ends soon. Committed rows are safe in
    any case. Outside the main thread of a process it sees none.

    A second Ctrl-C raises KeyboardInterrupt at once. `last` says that the process ends after this: a second Ctrl-C then
    ends it here and now, with 130, and after `with` only that is left to do: a first stop that comes late does not hide
    how the job ended.
    """

    def __init__(self, *, last: bool = False) -> None:
        self.asked = False
        self._last = last
        self._due: type[Drain] | type[OutOfTime] | None = None  # raised when no shield is up
        self._shields = 1
        self._limited = False
        self._settled = False
        self._deaf = False  # outside the main thread
        self._before: dict[int, object] = {}
        self._print_unraisable = sys.unraisablehook

    @property
    def wanted(self) -> type[Drain] | type[OutOfTime] | None:
        """What is raised as soon as no shield is up; None where no stop was asked for."""
        return None if self._settled else self._due

    def __enter__(self) -> StopSignal:
        try:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._time_over)
        except ValueError:  # Python lets the main thread alone handle signals
            self._deaf = True
            return self
        for number in STOPS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which nohup asks for
                self._before[number] = signal.signal(number, self._handle)
        self._print_unraisable, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *error: object) -> None:
        self.settle()
        if self._deaf:
            return
        sys.unraisablehook = self._print_unraisable
        if self._last:
            self._before |= dict.fromkeys(self._before.keys() & {signal.SIGTERM, signal.SIGHUP}, signal.SIG_IGN)
            self._before[signal.SIGINT] = self._handle
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def limit(self, seconds: float | None) -> None:
        """Raise OutOfTime in so many seconds, where Drain would be raised; None: no longer. Raises it now if time is
        over. Raises UsageError outside the main thread."""
        if self._deaf:
            if seconds is not None:
                from umbel.errors import UsageError

                raise UsageError("--deadline: needs the main thread of its process, which alone sees signals")
            return
        self._limited = seconds is not None
        if self._due is OutOfTime:
            self._due = None
        signal.setitimer(signal.ITIMER_REAL, 0.0 if seconds is None else max(0.0, seconds))
        if seconds is not None and seconds <= 0.0:
            raise OutOfTime

    def settle(self) -> None:
        """Ignore stops from now on: everything is done."""
        self._settled = True
        self.limit(None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A block that a stop cuts short, possibly at its very beginning."""
        self._shields -= 1
        try:
            self._raise_due()
            yield
        finally:
            self._shields += 1

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A block that is not cut short; a stop asked for in it is raised at its end."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        self._raise_due()

    def spare(self, act: Callable[[], object]) -> None:
        """Call something that an exception from a handler would break: imports, as compiled modules may end the process
        when one comes up through them."""
        with self.shielded():
            act()

    def _raise_due(self) -> None:
        due = self._due
        if due is not None and self._shields == 0 and not self._settled:
            self._due = None
            raise due

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT:
                self._end_now()
            return
        self.asked, self._due = True, Drain
        self._raise_due()

    def _end_now(self) -> NoReturn:
        if self._last:
            leave(INTERRUPTED, "interrupted")
        raise KeyboardInterrupt

    def _time_over(self, number: int, frame: FrameType | None) -> None:
        if self._limited and not self.asked:  # else a stop is on its way already
            self._due = OutOfTime
        self._raise_due()

    def _unraisable(self, what: sys.UnraisableHookArgs) -> None:
        """Raise again, in a moment, a stop that was raised where Python can only print it, in a `__del__` or a
        callback."""
        if isinstance(what.exc_value, Drain | OutOfTime):
            self._due = type(what.exc_value)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            self._print_unraisable(what)
