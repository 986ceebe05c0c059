"""Jobs that stand still in the middle until a signal comes, so that no test has to be quicker than its job.

    python tests/held.py MARK run in.jsonl -o out ...

runs `umbel run ...`, commits after every `GROUP` results, and stops once it has taken `HELD` of them: it creates the
file MARK and waits until the process is asked to stop, or killed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

GROUP, HELD = 8, 20
COMMITTED = HELD // GROUP * GROUP  # results that are stored by then; the others follow when the job is drained
PATIENCE = 300.0  # seconds


@contextmanager
def held(mark: Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A job that was started and stands still; what is left of it at the end is killed."""
    process = subprocess.Popen([sys.executable, __file__, str(mark), *arguments])
    try:
        wait_until(lambda: mark.exists() or process.poll() is not None)
        assert process.poll() is None, f"ended with exit code {process.returncode} before it was held"
        yield process
    finally:
        process.kill()
        process.wait()


def stop_held(mark: Path, arguments: Sequence[str], number: int) -> int:
    """Send signal `number` to a job that stands still; its exit code."""
    with held(mark, arguments) as process:
        process.send_signal(number)
        return process.wait(PATIENCE)


def wait_until(reached: Callable[[], bool]) -> None:
    """Return when a state is reached. The limit is far beyond any machine: it only ends a test that would hang."""
    limit = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < limit, f"waited {PATIENCE:.0f} s in vain"
        time.sleep(0.01)


def _main(mark: Path, arguments: list[str]) -> int:
    from umbel.cli.main import main
    from umbel.jobs import store
    from umbel.jobs.signals import StopSignal

    add, taken, entered, enter = store.JobStore.add, 0, list[StopSignal](), StopSignal.__enter__

    def hold(self: store.JobStore, result: store.Result) -> bool:
        nonlocal taken
        if taken == HELD:
            mark.touch()
            while not entered[-1].asked:
                time.sleep(0.01)
        taken += 1
        return add(self, result)

    def note(self: StopSignal) -> StopSignal:
        entered.append(self)
        return enter(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignal, "__enter__", note)
        patch.setattr(store, "GROUP_ROWS", GROUP)
        patch.setattr(store, "GROUP_SECONDS", float("inf"))
        patch.setattr(store.JobStore, "add", hold)
        return main(arguments)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2:]))
