"""How full the KV pool is kept, and how many rows are ever evicted, by rule of admission (Past-Future, 2507.10150).

The production scheduler over made-up rows whose answers end at lengths drawn beforehand; nothing is computed. Rows are
in groups with a shared beginning, and every row's limit is far beyond most answers. Prints a Markdown table.

    python bench/admission.py [--rows 6000] [--pool-rows 192] [--seed 0]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook, LengthCurve
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Outcomes, SampledTokens
from umbel.ir.step import StepResult
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.sched.lot import Lot
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

Ints = NDArray[np.int64]

PAGE, CHUNK, LIMIT = 16, 2048, 2048
PREFIX, OWN, GROUP = 256, 64, 50  # tokens shared by a group, tokens of each row, rows of a group


def uniform(rng: np.random.Generator, n: int) -> Ints:
    """1 to 512 tokens, all as likely."""
    return rng.integers(1, 513, n)


def bimodal(rng: np.random.Generator, n: int) -> Ints:
    """Seven of ten answers are short (16 to 112 tokens), three are long (200 to 800)."""
    return np.where(rng.random(n) < 0.7, rng.integers(16, 113, n), rng.integers(200, 801, n))


def apart(rng: np.random.Generator, n: int) -> Ints:
    """Four of five answers are short (16 to 64 tokens), the fifth is very long (800 to 1,200)."""
    return np.where(rng.random(n) < 0.8, rng.integers(16, 65, n), rng.integers(800, 1201, n))


def long_tailed(rng: np.random.Generator, n: int) -> Ints:
    """Lognormal around 120 tokens; one in a hundred is longer than 1,200."""
    return np.clip(rng.lognormal(np.log(120), 1.0, n), 1, LIMIT).astype(np.int64)


LENGTHS = {"uniform": uniform, "bimodal": bimodal, "long-tailed": long_tailed, "far apart": apart}


@dataclass(frozen=True)
class Result:
    """One run: shares of the pool and of the rows, and milliseconds of the scheduler per step."""

    occupancy: float
    evicted: float
    recomputed: float
    steps: int
    running: int
    milliseconds: float


def workload(rows: int) -> tuple[Workload, Forest]:
    """Rows in groups, each group's side by side."""
    rng = np.random.default_rng(1)
    heads = rng.integers(10, 1000, (-(-rows // GROUP), PREFIX))
    prompts = np.concatenate([np.repeat(heads, GROUP, 0)[:rows], rng.integers(10, 1000, (rows, OWN))], axis=1)
    made = Workload.of(prompts.tolist(), SamplingParams(max_tokens=LIMIT))
    return made, build_forest(made)


def run(made: tuple[Workload, Forest], lengths: Ints, pages: int, rule: str, history: LengthCurve | None) -> Result:
    """Drive the scheduler to the end; a row ends at its length. "oracle" is past-future with every length known."""
    (load, forest), oracle = made, rule == "oracle"
    policy = Policy(admission="past-future" if oracle else rule)
    ends = () if oracle else (2,)
    limits = lengths if oracle else np.full(len(load), LIMIT)
    s = Scheduler(PagePool(pages, PAGE), CHUNK, policy, LengthBook(history and {"": history}))
    s.add(Lot(load, forest, [ends] * len(load), limits))
    full, waited, began = 0, 0, time.process_time()
    while (step := s.next()) is not None:
        if s.waiting.first() is not None:
            waited += 1
            full += s.pool.used - s.kv.idle.pages
        n = len(step.sampling)
        sampled = SampledTokens(s.advance(), StepResult(np.zeros(n, np.int64), np.zeros(n, bool)))
        s.settle(sampled, Outcomes.of(sampled))
        slots = sampled.drawing.slots
        for slot in slots[s.seqs.n_out[slots] >= lengths[s.seqs.row[slots]]].tolist():
            s.finish(slot)
    spent = time.process_time() - began
    return Result(
        occupancy=full / max(waited, 1) / pages,
        evicted=s.evicted_rows / len(load),
        recomputed=s.recomputed_tokens / (s.computed_tokens + int(lengths.sum())),
        steps=s.steps,
        running=s.peak_running,
        milliseconds=1e3 * spent / s.steps,
    )


def main() -> None:
    """All rules on all lengths."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--pool-rows", type=int, default=192, help="rows of mean length that fit the pool")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    made = workload(asked.rows)
    print("| lengths | admission | occupancy | rows evicted | recomputed | steps | most at once | ms a step |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, draw in LENGTHS.items():
        rng = np.random.default_rng(asked.seed)
        lengths, before = draw(rng, asked.rows), draw(rng, 1000)
        pages = asked.pool_rows * -(-int(OWN + lengths.mean() / 2) // PAGE) + PREFIX // PAGE
        arms = [(rule, None) for rule in ("conservative", "aggressive", "headroom", "past-future")]
        for rule, history in [*arms, ("past-future", LengthCurve.of(before)), ("oracle", None)]:
            r = run(made, lengths, pages, rule, history)
            print(
                f"| {name} | {rule}{', with history' if history else ''} | {r.occupancy:.1%} | {r.evicted:.1%} | "
                f"{r.recomputed:.1%} | {r.steps:,} | {r.running} | {r.milliseconds:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
