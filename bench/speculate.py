"""What checking proposed tokens saves at most: `python -m bench.speculate [--model demo] [--rows 1,4] [--most 2,4]`.

A drafter that knows the answers proposes each next token rightly with probability --right; so steps and seconds depend
on what steps cost alone. Plain decoding and decoding with proposals take turns; seconds are those of the processor
(--wall: of the clock), the least of --repeats, and answers must be equal. Weights are random;
without --model, of the shape of Qwen3-0.6B.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.random_model import SHAPES
from umbel.api import LLM
from umbel.engine import build
from umbel.ir.params import SamplingParams
from umbel.sched.phases.speculate import Speculate
from umbel.spec.base import Constant, Drafts, Ints, TokenIds

Answers = dict[int, tuple[int, ...]]  # by row


class Oracle:
    """Proposes what is to come, with an error now and then."""

    def __init__(self, answers: Answers, right: float):
        self.answers, self.right = answers, right
        self.row: dict[int, int] = {}  # by rank
        self.has: dict[int, int] = {}
        self.rng = random.Random(0)

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """Note whose sample it is."""
        self.row[rank], self.has[rank] = row, 0

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Note how far samples are."""
        for rank, more in zip(ranks.tolist(), (begin[1:] - begin[:-1]).tolist(), strict=True):
            self.has[rank] += more

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """The next tokens, some of them by one too high."""
        found = []
        for rank, k in zip(ranks.tolist(), most.tolist(), strict=True):
            at = self.has[rank]
            truth = self.answers[self.row[rank]][at : at + k]
            found.append([token + (self.rng.random() >= self.right) for token in truth])
        return Drafts.of(found)

    def end(self, rank: int, *, done: bool) -> None:
        """Nothing to do."""


def timed(act: Callable[[], Answers], clock: Callable[[], float]) -> tuple[Answers, float]:
    began = clock()
    found = act()
    return found, clock() - began


def measure(llm: LLM, rows: int, most: int, asked: argparse.Namespace) -> str:
    """Plain decoding against decoding with proposals, one after the other."""
    prompts = [[(7 * i + 13 * j) % 900 + 5 for j in range(asked.prompt)] for i in range(rows)]
    params = SamplingParams(temperature=0.0, max_tokens=asked.out, ignore_eos=True)
    clock = time.perf_counter if asked.wall else time.process_time
    phase: list[Speculate | None] = [None]
    build.build_speculate = lambda *parts: phase[0]  # type: ignore[assignment]

    def run(speculate: Speculate | None) -> Answers:
        phase[0] = speculate
        return {row: output.outputs[0].token_ids for row, output in enumerate(llm.generate(prompts, params))}

    truth, best, steps = run(None), [1e9, 1e9], [0, 0]
    for _ in range(asked.repeats):
        for i, script in enumerate((None, Speculate(Oracle(truth, asked.right), Constant(most)))):
            before = llm.stats().steps
            found, seconds = timed(lambda script=script: run(script), clock)  # type: ignore[misc]
            assert found == truth, "the answers are not those of plain decoding"
            best[i], steps[i] = min(best[i], seconds), llm.stats().steps - before
    per = [1e3 * seconds / n for seconds, n in zip(best, steps, strict=True)]
    return (
        f"  {rows:3} rows, {most} proposed: {best[0] / best[1]:.2f} times the speed, {steps[0]} -> {steps[1]} steps "
        f"({steps[0] / steps[1]:.2f} times fewer) of {per[0]:.1f} -> {per[1]:.1f} ms"
    )


def main() -> None:
    """Measure at each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="demo, or a directory; its config.json is enough")
    parser.add_argument("--rows", default="1,4,8")
    parser.add_argument("--most", default="2,4,6")
    parser.add_argument("--right", type=float, default=0.8)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--out", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--wall", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.model is None:
            SHAPES["qwen3-0.6b"].save_pretrained(folder)
            (Path(folder) / "generation_config.json").unlink(missing_ok=True)
        given = {"dtype": asked.dtype, "threads": asked.threads, "kv_tokens": 8192}
        llm = LLM(asked.model or folder, load_format="dummy", **given)
        for rows in map(int, asked.rows.split(",")):
            for most in map(int, asked.most.split(",")):
                print(measure(llm, rows, most, asked), flush=True)


if __name__ == "__main__":
    main()
