"""What a job costs outside the model (read, tokenise, plan, store, write): `python bench/job_overhead.py [--rows N]`.

The engine is replaced by one that plans for real and then answers each row at once, so what is measured is everything
around the model. Prints microseconds per row, of processor time and of wall time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from umbel.batch.job_options import JobOptions, OutputOptions
from umbel.batch.job_setup import build_job
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.ir.arrivals import Arrivals
from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.request import Completion, Output
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.jobs.read.inputs import InputFile
from umbel.models.families import read_spec, resolve_model
from umbel.plan.planner import make_plan


class InstantEngine:
    """Plans the workload, then answers every row with the same four tokens."""

    def __init__(self, model: str):
        self.config = EngineConfig(model)
        self.spec = read_spec(resolve_model(model))
        self.planning = 0.0
        self.first_token = None
        self.keeps_unfinished = False
        self.machine = named("a100")  # from a data sheet: measuring this one is start-up, not work per row

    def plan_for(self, workload: Workload) -> Plan:
        """The plan that a run would have."""
        began = time.process_time()
        plan = make_plan(workload, self.spec, self.config, self.machine)
        self.planning += time.process_time() - began
        return plan

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        """Outputs in plan order."""
        plan = plan or self.plan_for(workload)
        sizes = (workload.offsets[1:] - workload.offsets[:-1]).tolist()
        for row in plan.order.tolist():
            yield Output(row, sizes[row], (Completion(0, " a b c d", (10, 11, 12, 13), "length"),))

    def execute_all(self, arrivals: Arrivals, stops: object = None) -> Iterator[tuple[int, Output]]:
        """Outputs of one workload after the other."""
        number = 0
        while (taken := arrivals.take(wait=True)) is not None:
            for output in self.execute(*taken):
                yield number, output
            number += 1

    def replicas(self) -> tuple[ReplicaTally, ...]:
        """None: it is one engine."""
        return ()

    def left(self) -> Left:
        """Nothing: rows are answered at once."""
        return Left(seconds=0.0)

    def stats(self) -> Stats:
        """No totals."""
        return Stats()


def write_rows(path: Path, rows: int, *, ids: bool, columns: bool) -> None:
    """Short rows: 'Is <number> even or odd?'; with `columns` three fields more, which come back."""
    with path.open("w") as out:
        for i in range(rows):
            name = {"custom_id": f"row-{i}"} if ids else {}
            more = {"label": "odd" if i % 2 else "even", "source": f"file-{i % 97}", "score": i / 7} if columns else {}
            out.write(json.dumps({**name, **more, "prompt": f"Is {i * 7919} even or odd?", "max_tokens": 4}) + "\n")


def main() -> None:
    """Measure with and without custom ids and columns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="demo")
    asked = parser.parse_args()
    import umbel.engine.arithmetic  # noqa: F401  (start-up, too)

    for ids, columns in ((False, False), (True, False), (True, True)):
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
            write_rows(source, asked.rows, ids=ids, columns=columns)
            options = JobOptions(asked.model, [str(source)], output=OutputOptions(str(output)))
            job = build_job(options, (InputFile.of(source),))
            engine = InstantEngine(asked.model)
            job.load = lambda engine=engine: engine
            wall, cpu = time.perf_counter(), time.process_time()
            summary = job.run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            phases = {name: round(seconds / asked.rows * 1e6, 1) for name, seconds in summary.seconds.items()}
            each = (
                f"{cpu / asked.rows * 1e6:.1f} us of processor and {wall / asked.rows * 1e6:.1f} us of wall time a row"
            )
            apart = f"{engine.planning / asked.rows * 1e6:.1f} us of it planning"
            kind = f"custom ids {'yes' if ids else 'no'}, columns {'yes' if columns else 'no'}"
            named_rows = f"{asked.rows:,} rows, {kind}"
            print(f"{named_rows}: {each}, {apart}; by phase (wall): {phases}")


if __name__ == "__main__":
    main()
