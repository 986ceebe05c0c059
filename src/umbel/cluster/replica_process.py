"""A replica: a process of its own that loads the model, runs the rows it is sent and sends their answers back.

It ends when its pipe does, whatever it is doing: its parent is gone then, or wants no more answers.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
import time
from dataclasses import asdict
from typing import Any, BinaryIO

from umbel.cluster.frames import Kind, decode_rows, encode_answer, frame, read_frame
from umbel.cluster.heartbeats import BEAT_SECONDS
from umbel.config import EngineConfig
from umbel.engine.local import LocalEngine
from umbel.errors import UmbelError
from umbel.ir.workload import Workload


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

    def tell_json(self, kind: Kind, value: Any, attempt: int = 0) -> None:
        """Send one frame of JSON."""
        self.tell(kind, json.dumps(value).encode(), attempt)


def main(order: str) -> None:
    """Serve until the pipe ends; `order` is what `LocalPool` wrote.

    Ends the process itself, with 1 for an unexpected error: its other threads would hold the model while the
    interpreter shuts down.
    """
    teller, code = Teller(_own_stdout()), 1
    try:
        _serve(json.loads(order), teller)
    except UmbelError as error:  # what another try would meet as well
        teller.tell_json(Kind.FAILED, {"error": type(error).__name__, "message": str(error)})
        code = 0
    except BaseException as error:
        print(f"umbel: a replica ends: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve(order: dict[str, Any], teller: Teller) -> None:
    coming: queue.SimpleQueue[tuple[Workload, int]] = queue.SimpleQueue()
    progress = ProgressTeller(teller)
    threading.Thread(target=_listen, args=(sys.stdin.buffer, coming), daemon=True).start()
    threading.Thread(target=progress.tell, daemon=True).start()
    config = EngineConfig(**{**order["config"], "skip": tuple(order["config"]["skip"])})
    replica = progress.replica = LocalEngine(config, share=order["count"])
    teller.tell_json(Kind.READY, {"machine": asdict(replica.machine), "dtype": replica.model.config.dtype})
    while True:
        workload, attempt = coming.get()
        for output in replica.execute(workload):
            teller.tell(Kind.ANSWER, encode_answer(output), attempt)
        teller.tell_json(Kind.DONE, totals(replica), attempt)


class ProgressTeller:
    """Sends a heartbeat twice a second, with a mark of progress: steps while it runs, memory while it loads.

    When rows have advanced it sends their totals too, even while none of them ends.
    """

    def __init__(self, teller: Teller):
        self.replica: LocalEngine | None = None
        self._teller = teller
        self._last: dict[str, Any] = {}

    def tell(self) -> None:
        """Send heartbeats until the process ends."""
        while True:
            steps = 0 if self.replica is None else self.replica.stats().steps
            self._teller.tell(Kind.BEAT, f"{steps} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}".encode())
            if self.replica is not None and (now := totals(self.replica)) != self._last:
                self._last = now
                self._teller.tell_json(Kind.STATS, now)
            time.sleep(BEAT_SECONDS)


def totals(replica: LocalEngine) -> dict[str, Any]:
    """The totals of a replica so far, and when its first token was there (seconds on the system's monotonic clock)."""
    return {"stats": asdict(replica.stats()), "first_token": replica.first_token}


def _own_stdout() -> BinaryIO:
    """The pipe behind stdout, which is stderr from now on, so that nothing a library prints gets between frames."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(stream: BinaryIO, coming: queue.SimpleQueue[tuple[Workload, int]]) -> None:
    """Put rows into the queue as they come; the end of the pipe ends the process, whatever it computes."""
    while (found := read_frame(stream)) is not None:
        coming.put((decode_rows(found.data), found.attempt))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
