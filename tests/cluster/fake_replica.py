"""A replica without a model: answers by arithmetic; token 13 kills it, token 14 makes a planned error.

Token 15 kills the first that meets it and lets none be loaded from then on, by the file that `MARK` names, which gets a
letter for each that tries; the others then take their time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from umbel.cluster.wire import Kind, decode_rows, encode_answer, frame, read_frame
from umbel.cost.machine import a100
from umbel.ir.report import Stats
from umbel.ir.request import Completion, Output

MARK = "UMBEL_TEST_MARK"


def tell(kind: Kind, data: bytes) -> None:
    sys.stdout.buffer.write(frame(kind, data))
    sys.stdout.buffer.flush()


def main() -> None:
    mark = Path(os.environ.get(MARK, "/nowhere"))
    if mark.exists():
        with mark.open("a") as file:
            file.write("x")
        sys.exit(3)
    tell(Kind.READY, json.dumps({"machine": asdict(a100()), "dtype": "float32"}).encode())
    done = 0
    while (found := read_frame(sys.stdin.buffer)) is not None:
        workload = decode_rows(found[1])
        for row, key in enumerate(workload.keys.tolist()):
            ids = workload.prompt(row).tolist()
            if 13 in ids or (15 in ids and not mark.exists()):
                if 15 in ids:
                    mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if mark.exists():
                time.sleep(0.05)
            if 14 in ids:
                tell(Kind.FAILED, json.dumps({"error": "CapacityError", "message": "too large"}).encode())
                return
            tell(Kind.ANSWER, encode_answer(Output(row, len(ids), (Completion(0, "", (key, *ids[:1]), "length"),))))
            done += 1
        stats = asdict(Stats(rows_done=done, output_tokens=2 * done, kv_peak_tokens=done))
        tell(Kind.DONE, json.dumps({"stats": stats, "first_token": 5.0}).encode())


if __name__ == "__main__":
    main()
