"""What the loop itself costs: `python bench/loop_cost.py [--model DIR] [--rows 1,64,256,1000] [--json OUT]`.

With --drafted 4 each row is proposed so many tokens in every step, each of which is right with probability 0.8.

Rows that share a beginning in groups of 16 all decode at once. Every part of the loop is timed in every step: first
with a runner that answers at once (so that nothing else uses the caches of the processor), then, with --model, with the
real one, where the share of the step is given. Prints microseconds: medians over the steps in which every row decodes,
and means per row for what happens once a row (starting it, ending it, its text).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.api import LLM
from umbel.cost.load import Load
from umbel.engine import build
from umbel.engine.build import build_loop, build_runner, build_store, plan_workload
from umbel.engine.loop import Loop
from umbel.ir.params import SamplingParams
from umbel.ir.step import Step, StepResult
from umbel.ir.workload import Workload
from umbel.runner.base import Wait, done
from umbel.runner.torch_runner import TorchRunner
from umbel.sched.phases.speculate import Speculate
from umbel.spec.base import Drafts, Ints, TokenIds
from umbel.spec.measured import Measured
from umbel.spec.priced import PricedDepth

SHARED, OWN = 64, 16

ONCE = ("finish", "texts")  # what each row costs


class Clock:
    """Seconds by part, of one step at a time; `steps` keeps them with what the step did."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.steps: list[tuple[int, int, dict[str, float]]] = []  # rows that decode, samples that end, seconds by part

    def timed(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted."""

        def wrapped(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return act(*given, **named)
            finally:
                self.now[name] += time.perf_counter() - began

        return wrapped

    def close(self, decoding: int, ended: int) -> None:
        """Do nothing: there is no device."""
        self.steps.append((decoding, ended, dict(self.now)))
        self.now.clear()


def after(tokens: Ints, width: int) -> Ints:
    """The tokens that come behind others."""
    return np.asarray((tokens * 5 + 3) % (width - 2) + 2)


class Instant:
    """Lays out every step as the real runner does, then answers without computing."""

    def __init__(self, real: TorchRunner, width: int, clock: Clock):
        self.prepare = clock.timed("layout", real.attention.prepare)
        self.ahead, self.width = 0, width

    def start(self, step: Step) -> Wait:
        """The token behind each."""
        read, n = self.prepare(step), len(step.sampling)
        drawn = after(step.tokens[step.sampling.at], self.width)
        return done(StepResult(drawn, np.zeros(n, bool), kv_tokens_read=read))

    def close(self) -> None:
        """Nothing to give back."""


class Foreseeing:
    """Proposes what the runner above draws, with an error one time in five."""

    def __init__(self, drafted: int, width: int):
        self.drafted, self.width, self.last = drafted, width, np.zeros(1 << 12, np.int64)
        self.draw = np.random.default_rng(0)

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """Nothing to do."""

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Note the last tokens."""
        self.last[ranks] = tokens[begin[1:] - 1]

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """As many for each."""
        token, found = self.last[ranks], []
        for _ in range(self.drafted):
            token = after(token, self.width)
            found.append(token)
        tokens = np.stack(found, 1).reshape(-1)
        wrong = self.draw.random(len(tokens)) >= 0.8
        return Drafts(tokens - wrong * (tokens > 2), np.arange(len(ranks) + 1) * self.drafted)

    def end(self, rank: int, *, done: bool) -> None:
        """Nothing to do."""


class Free:
    """Prices of steps by which every proposed token pays."""

    def renewed(self) -> bool:
        """They never change."""
        return False

    def each(self, load: Load) -> NDArray[np.float64]:
        """As good as the same for any step."""
        return np.ones(len(load.tokens)) + 1e-9 * load.tokens


def speculate_of(drafted: int, width: int, clock: Clock) -> Speculate | None:
    """The phase of proposals, its parts timed; None without."""
    if not drafted:
        return None
    phase = Speculate(Foreseeing(drafted, width), Measured(PricedDepth(Free())))
    for name in ("learn", "finish", "_tell", "_put"):
        setattr(phase, name, clock.timed(f"speculate{name if name[0] == '_' else '_' + name}", getattr(phase, name)))
    for name in ("most", "keep", "learn"):
        setattr(phase.depth, name, clock.timed(f"depth_{name}", getattr(phase.depth, name)))
    return phase


def workload_of(rows: int, out: int, width: int, *, ragged: bool) -> Workload:
    """Rows in groups of 16, each row with some tokens of its own; with limits of their own, where `ragged`."""
    draw = np.random.default_rng(rows)
    shared = draw.integers(2, width, (-(-rows // 16), SHARED))
    prompts = [[*shared[i // 16].tolist(), *draw.integers(2, width, OWN).tolist()] for i in range(rows)]
    limits = draw.integers(out // 2, out + out // 2, rows).tolist() if ragged else [out] * rows
    params = {n: SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in set(limits)}
    return Workload.of(prompts, [params[n] for n in limits])


def watch(loop: Loop, clock: Clock, *, instant: bool, width: int) -> None:
    """Put the clock around the parts of a loop."""
    scheduler, rows, runner = loop.scheduler, loop.rows, loop.runner
    assert isinstance(runner, TorchRunner)
    for name in ("next", "advance", "settle", "finish"):
        setattr(scheduler, name, clock.timed(name, getattr(scheduler, name)))
    for phase in scheduler.phases:
        phase.fill = clock.timed(type(phase).__name__.lower(), phase.fill)  # type: ignore[method-assign]
    scheduler._assembler.step = clock.timed("assemble", scheduler._assembler.step)  # type: ignore[method-assign]
    loop.watchers.judge = clock.timed("judge", loop.watchers.judge)  # type: ignore[method-assign]
    rows._texts = clock.timed("texts", rows._texts)  # type: ignore[method-assign]
    loop.meter.add = clock.timed("meter", loop.meter.add)  # type: ignore[method-assign]
    if instant:
        loop.runner = Instant(runner, width, clock)
    else:
        runner.attention.prepare = clock.timed("layout", runner.attention.prepare)  # type: ignore[method-assign]
        runner.decoder.embed = clock.timed("embed", runner.decoder.embed)  # type: ignore[method-assign]
        runner.decoder.forward = clock.timed("forward", runner.decoder.forward)  # type: ignore[method-assign]
        runner.decoder.logits = clock.timed("logits", runner.decoder.logits)  # type: ignore[method-assign]
        loop.runner.start = clock.timed("run", runner.start)  # type: ignore[method-assign]


def measure(llm: LLM, rows: int, asked: argparse.Namespace, *, instant: bool, ragged: bool = False) -> dict[str, float]:
    """The microseconds of one job, by part."""
    out = asked.out
    width = llm.spec.vocab_size
    workload = workload_of(rows, out, width, ragged=ragged)
    model, clock = llm.engine.model, Clock()
    plan = plan_workload(model, workload, llm.engine.machine)
    build.build_speculate = lambda *parts: speculate_of(asked.drafted, width, clock)  # type: ignore[assignment]
    loop = build_loop(model, plan, build_runner(model, build_store(model, plan.kv_pages, plan.page_size)))
    loop.add(workload, plan)
    watch(loop, clock, instant=instant, width=width)
    for _ in _steps(loop, clock):
        pass
    return summary(clock, rows, ragged=ragged, drafted=asked.drafted)


def _steps(loop: Loop, clock: Clock) -> Iterator[None]:
    """Run the loop; the clock is closed after each step."""
    ran: list[Step] = []
    judge, start = loop.watchers.judge, loop.runner.start
    loop.runner.start = lambda step: (ran.append(step), start(step))[1]  # type: ignore[method-assign]
    ended = [0]

    def counted(*given: Any) -> Any:
        found = judge(*given)
        ended[0] = len(found.finished)
        return found

    loop.watchers.judge = counted  # type: ignore[method-assign]
    add = loop.meter.add
    began = time.perf_counter()

    def close(step: Step, *given: Any) -> None:
        nonlocal began
        add(step, *given)
        clock.now["whole"] = time.perf_counter() - began
        drawing = len(np.unique(step.sampling.streams + step.sampling.samples))
        clock.close(drawing if step.n_rows == len(step.sampling) else -1, ended[0])
        began = time.perf_counter()

    loop.meter.add = close  # type: ignore[method-assign]
    for _ in loop.run():
        yield


def summary(clock: Clock, rows: int, *, ragged: bool, drafted: int = 0) -> dict[str, float]:
    """Medians over the steps in which all rows decode and none ends (`ragged`: in which half or more of them decode,
    and some have just ended; `drafted`: in which most of them decode); means per row of what happens once."""
    steady = [parts for decoding, ended, parts in clock.steps if decoding == rows and not ended]
    if drafted:
        steady = [parts for decoding, _, parts in clock.steps if decoding >= 0.8 * rows]
    if ragged:
        steady = [now[2] for last, now in pairwise(clock.steps) if last[1] and now[0] >= rows / 2]
    if not steady:
        return {}
    names = sorted({name for parts in steady for name in parts})
    found = {name: median(parts.get(name, 0.0) for parts in steady) * 1e6 for name in names}
    own = found["whole"] - found.get("forward", 0) - found.get("logits", 0) - found.get("embed", 0)
    totals: dict[str, float] = defaultdict(float)
    for _, _, parts in clock.steps:
        for name, seconds in parts.items():
            totals[name] += seconds
    for name in (*ONCE, "admit"):
        found[f"{name} a row"] = totals[name] / rows * 1e6
    last = [parts for _, ended, parts in clock.steps if ended]
    plain = found["whole"]
    found["ending a row"] = sum(max(0.0, parts["whole"] * 1e6 - plain) for parts in last) / rows
    return {"rows": rows, "steps": len(steady), "loop": own, **found}


def _line(figures: dict[str, float], *, instant: bool) -> str:
    shown = ", ".join(f"{name} {us:,.0f}" for name, us in figures.items() if name not in ("rows", "steps"))
    share = "" if instant else f"; the loop is {figures['loop'] / figures['whole']:.1%} of a step"
    return f"  {figures['rows']:5,.0f} rows, {figures['steps']:.0f} steps: {shown}{share}"


def main() -> None:
    """Measure at each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="also with this model's real steps")
    parser.add_argument("--rows", default="1,64,256,1000")
    parser.add_argument("--out", type=int, default=64)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--drafted", type=int, default=0)
    parser.add_argument("--instant-only", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    llm = LLM(asked.model or "demo", dtype=asked.dtype, chunk=4096, kv_tokens=1 << 18)
    kinds = [True] if asked.instant_only or not asked.model else [True, False]
    found = []
    for instant, ragged in [(instant, ragged) for instant in kinds for ragged in (False, True)]:
        who = "a runner that answers at once" if instant else f"{asked.model}, {llm.engine.model.config.dtype}"
        print(f"{who}; {'steps after one in which rows ended' if ragged else 'the same rows decode'}")
        for rows in map(int, asked.rows.split(",")):
            measure(llm, rows, asked, instant=instant, ragged=ragged)  # what it pays for once, later ones find ready
            figures = measure(llm, rows, asked, instant=instant, ragged=ragged)
            if figures:
                found.append({"instant": instant, "ragged": ragged, **figures})
                print(_line(figures, instant=instant), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
