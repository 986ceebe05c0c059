"""`umbel` as a process of its own, with an engine that answers by arithmetic: `python -m tests.cli.fake_umbel run ...`.

With `HOLD` the engine makes a file of that name after three rows and goes on when the file is gone. `SEND` is a place
and signals that come there: `late:2,15` when all is said, `early:2` before the command is imported, `stuck:2` twice,
the second while the first is on its way.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.jobs.fakes import FakeEngine
from umbel.batch import loading as assemble
from umbel.cli import main, process
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload

HOLD, SEND = "UMBEL_TEST_HOLD", "UMBEL_TEST_SEND"


class HeldEngine(FakeEngine):
    """Waits for the test that watches."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            if i == 3 and HOLD in os.environ:
                held = Path(os.environ[HOLD])
                held.touch()
                while held.exists():
                    time.sleep(0.005)
            try:
                send("stuck")
            finally:
                send("stuck")
            yield output


def send(place: str) -> None:
    """The signals that are to come at this place."""
    where, _, numbers = os.environ.get(SEND, ":").partition(":")
    for number in numbers.split(",") if where == place else ():
        os.kill(os.getpid(), int(number))


def prepare() -> None:
    """Put the fakes into place."""
    assemble._load = lambda *given: HeldEngine()  # type: ignore[assignment]
    run = main._run

    def early(given: list[str], *, own_process: bool = False) -> int:
        send("early")
        return run(given, own_process=own_process)

    def late(code: int) -> int:
        found = process.finish(code)
        send("late")
        return found

    main._run, main.finish = early, late


if __name__ == "__main__":
    prepare()
    sys.exit(main.main())
