"""What counts as a fault of a reader: an exception that is not planned, a hang, memory without bound."""

from __future__ import annotations

import faulthandler
import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from umbel.errors import UmbelError

T = TypeVar("T")

MAX_SECONDS = 5.0
MAX_GROWTH_BYTES = 500 * 2**20
MAX_MESSAGE_CHARS = 4_000
DEAD_SECONDS = 120  # of the clock: a reader that hangs in compiled code ends the run with its stack


class Fault(AssertionError):
    """A reader did what no input may make it do."""


def survive(read: Callable[[], T], *planned: type[UmbelError]) -> T | UmbelError:
    """What `read` gives, or the planned error that it raised; anything else is a Fault.

    Time is the process's own, so that a busy machine makes no fault.
    """
    before, began = _peak_bytes(), time.process_time()
    faulthandler.dump_traceback_later(DEAD_SECONDS, exit=True)
    try:
        found: T | UmbelError = read()
    except planned as error:
        found = error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # also panics of compiled libraries, which are no Exceptions
        raise Fault(f"{type(error).__name__}: {str(error)[:300]}") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds, growth = time.process_time() - began, _peak_bytes() - before
    if seconds > MAX_SECONDS:
        raise Fault(f"took {seconds:.1f} s")
    if growth > MAX_GROWTH_BYTES:
        raise Fault(f"took {growth / 2**20:.0f} MB")
    if isinstance(found, UmbelError):
        check_message(str(found))
    return found


def check_message(message: str) -> None:
    """A message can be read: it says something, is short, and can be written as UTF-8."""
    if not 0 < len(message) <= MAX_MESSAGE_CHARS:
        raise Fault(f"a message of {len(message):,} characters")
    try:
        message.encode()
    except UnicodeEncodeError:
        raise Fault(f"a message that cannot be written: {message!r:.300}") from None


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
