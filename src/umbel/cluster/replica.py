"""A replica: a process of its own that loads the model, runs the rows it is sent and sends their answers back.

It ends when its pipe does, in whatever it is: whoever started it is gone then, or wants no more answers.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from typing import Any, BinaryIO

from umbel.api import LLM
from umbel.cluster.wire import Kind, decode_rows, encode_answer, frame, read_frame
from umbel.config import EngineConfig
from umbel.cost.devices import shared_by
from umbel.cost.machine import Machine
from umbel.engine.lessons import Lessons
from umbel.errors import UmbelError
from umbel.ir.workload import Workload

TELL_SECONDS = 0.5  # between two looks at the totals


class Replica(LLM):
    """An LLM that counts on its part of the processor, and learns what steps take beside others."""

    def __init__(self, config: EngineConfig, count: int):
        options = asdict(config)
        super().__init__(options.pop("model"), **options)
        self._machine = shared_by(self._machine, count)
        self._lessons = Lessons(self._model, self._machine)

    @property
    def machine(self) -> Machine:
        """What it plans for."""
        return self._machine

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return self._model.config.dtype


class Teller:
    """The way back, for several threads; ends the process where nobody listens any more."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, kind: Kind, data: bytes) -> None:
        """Send one frame."""
        with self._lock:
            try:
                self._stream.write(frame(kind, data))
                self._stream.flush()
            except OSError:
                os._exit(0)

    def tell_json(self, kind: Kind, value: Any) -> None:
        """Send one frame of JSON."""
        self.tell(kind, json.dumps(value).encode())


def main(order: str) -> None:
    """Serve until the pipe ends; `order` is what `LocalPool` wrote."""
    teller = Teller(_own_stdout())
    coming: queue.SimpleQueue[Workload] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, coming), daemon=True).start()
    given = json.loads(order)
    try:
        replica = Replica(EngineConfig(**{**given["config"], "skip": tuple(given["config"]["skip"])}), given["count"])
        teller.tell_json(Kind.READY, {"machine": asdict(replica.machine), "dtype": replica.dtype})
        threading.Thread(target=_tell_totals, args=(replica, teller), daemon=True).start()
        while True:
            for output in replica.execute(coming.get()):
                teller.tell(Kind.ANSWER, encode_answer(output))
            teller.tell_json(Kind.DONE, totals(replica))
    except UmbelError as error:  # what another try would meet as well
        teller.tell_json(Kind.FAILED, {"error": type(error).__name__, "message": str(error)})


def totals(replica: LLM) -> dict[str, Any]:
    """What a replica has done so far, and when its first token was there (seconds on the system's one clock)."""
    return {"stats": asdict(replica.stats()), "first_token": replica.first_token}


def _own_stdout() -> BinaryIO:
    """The pipe behind stdout, which from now on is stderr: what a library prints is no frame."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(stream: BinaryIO, coming: queue.SimpleQueue[Workload]) -> None:
    """Hand on rows as they come; the end of the pipe ends the process, whatever it computes."""
    while (found := read_frame(stream)) is not None:
        coming.put(decode_rows(found[1]))
    os._exit(0)


def _tell_totals(replica: LLM, teller: Teller) -> None:
    """Tell how far the rows are, also while none of them ends."""
    last: dict[str, Any] = {}
    over = threading.Event()
    while not over.wait(TELL_SECONDS):
        if (now := totals(replica)) != last:
            last = now
            teller.tell_json(Kind.STATS, now)


if __name__ == "__main__":
    main(sys.argv[1])
