"""What it saves that windows of a large input overlap: `python -m bench.windows [--model demo] [--rows 4000]`.

The same rows, whose answers differ in length, are cut into windows of several sizes, which run one after the other or
overlap, in turn. Prints steps and seconds of both; the answers are compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from umbel.api import LLM
from umbel.engine.answering import Answering
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload

SHARED, OWN, MEAN = 48, 24, 24  # tokens: of a beginning that 50 rows share, of each row's own, of an answer


class Windows:
    """An Arrivals of rows, so many in each window; all are planned before the clock starts."""

    several = True

    def __init__(self, llm: LLM, rows: Workload, size: int):
        self._left = [(part, llm.plan_for(part)) for part in _cut(rows, size)]

    def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
        """The next one; each is ready."""
        return self._left.pop(0) if self._left else None


def _cut(rows: Workload, size: int) -> list[Workload]:
    found = []
    for begin in range(0, len(rows), size):
        some = range(begin, min(begin + size, len(rows)))
        prompts = [rows.prompt(i).tolist() for i in some]
        found.append(Workload.of(prompts, [rows.params[i] for i in some], list(some)))
    return found


def some_rows(count: int, vocab_size: int) -> Workload:
    """Rows in groups of 50; the lengths of their answers are drawn from a geometric distribution."""
    rng = np.random.default_rng(0)
    heads = rng.integers(100, vocab_size, (-(-count // 50), SHARED))
    prompts = [[*heads[i // 50].tolist(), *rng.integers(100, vocab_size, OWN).tolist()] for i in range(count)]
    lengths = np.minimum(rng.geometric(1 / MEAN, count), 8 * MEAN).tolist()
    return Workload.of(prompts, [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in lengths])


def run(llm: LLM, windows: Windows, *, overlap: bool) -> tuple[list[Output], int, float]:
    """The outputs, in the order of the input, the steps and the seconds."""
    outputs = llm.execute_all(windows) if overlap else Answering.execute_all(llm, windows)
    steps, began = llm.stats().steps, time.perf_counter()
    found = sorted(outputs, key=lambda one: (one[0], one[1].row))
    return [output for _, output in found], llm.stats().steps - steps, time.perf_counter() - began


def main(given: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--sizes", default="250,500,1000,2000", help="rows of a window")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(given)
    llm = LLM(asked.model, device="cpu")
    rows = some_rows(asked.rows, llm.spec.vocab_size)
    print("rows a window   steps: in turn  overlapping  saved   seconds: in turn  overlapping  saved")
    for size in map(int, asked.sizes.split(",")):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        steps, answers = {}, {}
        for _ in range(asked.repeats):
            for overlap in (False, True):
                answers[overlap], steps[overlap], took = run(llm, Windows(llm, rows, size), overlap=overlap)
                seconds[overlap].append(took)
        assert answers[True] == answers[False], "other answers"
        apart, together = (float(np.median(seconds[overlap])) for overlap in (False, True))
        saved = f"{1 - steps[True] / steps[False]:6.0%}", f"{1 - together / apart:6.0%}"
        print(f"{size:13,}{steps[False]:16,}{steps[True]:13,} {saved[0]}{apart:19.1f}{together:13.1f} {saved[1]}")


if __name__ == "__main__":
    main()
