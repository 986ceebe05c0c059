"""A server in a process of its own, to be killed: `python tests/serve/serving.py MODEL STORE HELD`.

It prints its address. Its batches commit every row, hand out a few at a time, and with HELD no more after so many rows.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(model: Path, store: Path, held: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server and its process, which is killed at the end."""
    command = [sys.executable, __file__, str(model), str(store), str(held)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = next((line for line in process.stderr if "listens at" in line), "")
            assert found, f"ended with exit code {process.wait()}"
            yield found.split()[-1], process
        finally:
            process.kill()


def _main(model: str, store: str, held: int) -> int:
    from umbel.config import EngineConfig
    from umbel.jobs import store as job_store
    from umbel.serve.batches import shared_engine
    from umbel.serve.run import run_server
    from umbel.serve.settings import ServeSettings

    job_store.GROUP_ROWS = 1
    shared_engine.ROWS, shared_engine.LOOK_SECONDS = 4, 0.01
    feed, engines = shared_engine.SharedEngine._feed, list[object]()

    def slowly(engine: shared_engine.SharedEngine) -> None:
        engines[:] = [engine]
        if not held or engine._own.rows_done < held:
            feed(engine)

    shared_engine.SharedEngine._feed = slowly  # type: ignore[method-assign]
    config = EngineConfig(model, dtype="float32", device="cpu", threads=1, chunk=64)
    return run_server(ServeSettings(config, port=0, names=("tiny",), store=Path(store)))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
