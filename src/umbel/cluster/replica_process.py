"""The process of a replica of `LocalPool`: rows come in by a pipe, and what is said of them goes out by another.

It ends when its pipe does, whatever it is doing: its parent is gone then, or wants no more answers.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from typing import BinaryIO

from umbel.cluster.frames import Kind, frame, read_frame
from umbel.cluster.heartbeats import BEAT_SECONDS
from umbel.cluster.replica import Replica, failed
from umbel.errors import UmbelError


class Teller:
    """Sends frames back, from several threads; ends the process when the reader is gone."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, kind: Kind, data: bytes, attempt: int = 0) -> None:
        """Send one frame."""
        with self._lock:
            try:
                self._stream.write(frame(kind, data, attempt))
                self._stream.flush()
            except OSError:
                os._exit(0)


def main(order: str) -> None:
    """Serve until the pipe ends; `order` is what `LocalPool` wrote.

    Ends the process itself, with 1 for an unexpected error: its other threads would hold the model while the
    interpreter shuts down.
    """
    teller, code = Teller(_own_stdout()), 1
    try:
        _serve(Replica(order), teller)
    except UmbelError as error:  # what another try would meet as well
        teller.tell(Kind.FAILED, failed(error))
        code = 0
    except BaseException as error:
        print(f"umbel: a replica ends: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve(replica: Replica, teller: Teller) -> None:
    coming: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, coming), daemon=True).start()
    threading.Thread(target=_beat, args=(replica, teller), daemon=True).start()
    teller.tell(*replica.load())
    while True:
        data, attempt = coming.get()
        for kind, told in replica.run(data):
            teller.tell(kind, told, attempt)


def _beat(replica: Replica, teller: Teller) -> None:
    """Send a heartbeat twice a second and, when rows have advanced, the totals too, even while none of them ends."""
    last = replica.totals()
    while True:
        teller.tell(Kind.BEAT, replica.beat())
        if (now := replica.totals()) != last:
            last = now
            teller.tell(Kind.STATS, now)
        time.sleep(BEAT_SECONDS)


def _own_stdout() -> BinaryIO:
    """The pipe behind stdout, which is stderr from now on, so that nothing a library prints gets between frames."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(stream: BinaryIO, coming: queue.SimpleQueue[tuple[bytes, int]]) -> None:
    """Put rows into the queue as they come; the end of the pipe ends the process, whatever it computes."""
    while (found := read_frame(stream)) is not None:
        coming.put((found.data, found.attempt))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
