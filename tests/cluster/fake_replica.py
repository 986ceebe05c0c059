"""A replica without a model: answers by arithmetic, and does what some tokens say.

13 kills it, 14 makes a planned error, 201 stops it as SIGSTOP does, 202 makes its work hang while it lives (both say so
in the file that `HUNG` names), 203 answers rows that it was not given this time. 15 kills the first that meets it and
lets none be loaded from then on, by the file that `MARK` names, which gets a letter for each that tries; the others
then take their time. Of those that start while there is a file named `FIRST`, one takes it away and is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from umbel.cluster.frames import Kind, decode_rows, encode_answer, frame, read_frame
from umbel.cost.cards import named
from umbel.ir.report import Stats
from umbel.ir.request import Completion, Output

LOCK = threading.Lock()
MARK, FIRST, HUNG = "UMBEL_TEST_MARK", "UMBEL_TEST_FIRST", "UMBEL_TEST_HUNG"


def tell(kind: Kind, data: bytes = b"", lot: int = 0) -> None:
    with LOCK:
        sys.stdout.buffer.write(frame(kind, data, lot))
        sys.stdout.buffer.flush()


def beat() -> None:
    """Live, and never get any further."""
    while True:
        tell(Kind.BEAT, b"here")
        time.sleep(0.02)


def do(ids: list[int], lot: int) -> None:
    """What some tokens ask for."""
    if 13 in ids:
        os.kill(os.getpid(), signal.SIGKILL)
    if 201 in ids or 202 in ids:
        with open(os.environ[HUNG], "a") as file:
            file.write(f"{os.getpid()}\n")
    if 201 in ids:
        os.kill(os.getpid(), signal.SIGSTOP)
    if 202 in ids:
        time.sleep(3600.0)
    if 203 in ids:
        tell(Kind.ANSWER, encode_answer(Output(0, 1, (Completion(0, "", (99,), "late"),))), lot - 1)
        tell(Kind.DONE, json.dumps({"stats": asdict(Stats()), "first_token": None}).encode(), lot - 1)


def main() -> None:
    mark = Path(os.environ.get(MARK, "/nowhere"))
    if mark.exists():
        with mark.open("a") as file:
            file.write("x")
        sys.exit(3)
    with suppress(FileNotFoundError):
        Path(os.environ.get(FIRST, "/nowhere")).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=beat, daemon=True).start()
    tell(Kind.READY, json.dumps({"machine": asdict(named("a100")), "dtype": "float32"}).encode())
    tell(Kind.WANT)
    done = 0
    while (found := read_frame(sys.stdin.buffer)) is not None:
        workload = decode_rows(found.data)
        for row, key in enumerate(workload.keys.tolist()):
            ids = workload.prompt(row).tolist()
            do(ids, found.lot)
            if 15 in ids and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if mark.exists():
                time.sleep(0.05)
            if 14 in ids:
                tell(Kind.FAILED, json.dumps({"error": "CapacityError", "message": "too large"}).encode())
                return
            tell(
                Kind.ANSWER,
                encode_answer(Output(row, len(ids), (Completion(0, "", (key, *ids[:1]), "length"),))),
                found.lot,
            )
            done += 1
        stats = asdict(Stats(rows_done=done, output_tokens=2 * done, kv_peak_tokens=done))
        tell(Kind.DONE, json.dumps({"stats": stats, "first_token": 5.0}).encode(), found.lot)
        tell(Kind.WANT)


if __name__ == "__main__":
    main()
