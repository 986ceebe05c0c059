"""What it costs that replicas are on a Ray cluster and not processes of this machine, and what one slow replica costs.

    RAY_worker_niceness=0 python -m bench.executors over --model demo --rows 1200 --rounds 8
    python -m bench.executors driver --model TINY --rows 100000
    python -m bench.executors slow --model demo --rows 3000 --kv-tokens 8192

`over`: two replicas of each kind, in turn over the same rows: seconds, and seconds of processors of all that works for
them. `driver`: seconds of a processor that the driver takes for a row of one token out. `slow`: one of two replicas is
stopped for two thirds of each 0.15 s; how long it takes against what both speeds together allow.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from umbel.cluster.replicas import Replicas
from umbel.ir.params import SamplingParams

TICK = os.sysconf("SC_CLK_TCK")
PROGRAM = b"umbel.cluster.replica_process"
ACTOR = b"ray::Actor"
Prompts = list[list[int]]


def family(pid: int) -> dict[int, tuple[bytes, float]]:
    """The processes that descend from one: the words of each, and the seconds that processors worked for it."""
    parents, found = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            parents[int(path.name)] = int(fields[1])
            found[int(path.name)] = (path / "cmdline").read_bytes(), (int(fields[11]) + int(fields[12])) / TICK
        except OSError:  # it has just ended
            continue

    def descends(one: int) -> bool:
        while one in parents:
            one = parents[one]
            if one == pid:
                return True
        return False

    return {one: told for one, told in found.items() if descends(one)}


def seconds_of(kind: str) -> float:
    """Seconds of processors of this process and what works for replicas of a kind; what else descends from it is
    Ray's."""
    others = family(os.getpid()).values()
    return time.process_time() + sum(s for words, s in others if (PROGRAM in words) == (kind == "local"))


def make_prompts(rows: int, words: int) -> Prompts:
    """Rows with a few beginnings in common and their own words."""
    rng = random.Random(1)
    heads = [[rng.randrange(100, 290) for _ in range(4 * words)] for _ in range(7)]
    return [rng.choice(heads) + [rng.randrange(100, 290) for _ in range(1 + rng.randrange(words))] for _ in range(rows)]


def made(arguments: argparse.Namespace, kind: str) -> Replicas:
    """Two replicas, both of them loaded."""
    options = {"data_parallel_size": 2, "device": "cpu", "threads": 1, "kv_tokens": arguments.kv_tokens}
    replicas = Replicas(arguments.model, executor=kind, **options)
    while len(replicas.crew.ready) < 2:
        replicas.generate([[5, 6, 7]] * 8, SamplingParams(max_tokens=2), use_tqdm=False)
    return replicas


@dataclass(frozen=True)
class Round:
    """One pass over the rows: seconds, those of processors, and those of the driver alone."""

    seconds: float
    worked: float
    driver: float


def measured(kind: str, replicas: Replicas, prompts: Prompts, params: SamplingParams) -> Round:
    """One pass over the rows."""
    worked, driver, began = seconds_of(kind), time.process_time(), time.monotonic()
    replicas.generate(prompts, params, keys=range(len(prompts)), use_tqdm=False)
    return Round(time.monotonic() - began, seconds_of(kind) - worked, time.process_time() - driver)


def over(arguments: argparse.Namespace) -> None:
    """Rounds in turn, so that what else the machine does falls on both."""
    prompts, params = make_prompts(arguments.rows, 24), SamplingParams(temperature=0.8, max_tokens=48, ignore_eos=True)
    with made(arguments, "local") as local, made(arguments, "ray") as on_ray:
        rounds: dict[str, list[Round]] = {"local": [], "ray": []}
        for number in range(arguments.rounds + 1):  # the first is short and not counted
            some = prompts if number else prompts[: len(prompts) // 10 + 1]
            for kind, replicas in (("local", local), ("ray", on_ray))[:: 1 if number % 2 else -1]:
                one = measured(kind, replicas, some, params)
                print(f"{number:>3} {kind:<5} {one.seconds:7.2f} s {one.worked:7.2f} processor-s", flush=True)
                if number:
                    rounds[kind].append(one)
        for name in ("seconds", "worked"):
            each = {kind: [getattr(one, name) for one in many] for kind, many in rounds.items()}
            ratios = [b / a for a, b in zip(each["local"], each["ray"], strict=True)]
            print(
                f"{name}: local {sum(each['local']):.1f}, ray {sum(each['ray']):.1f}, together "
                f"{sum(each['ray']) / sum(each['local']):.3f}; of pairs: median {statistics.median(ratios):.3f}, "
                f"{min(ratios):.3f} to {max(ratios):.3f}"
            )


def driver(arguments: argparse.Namespace) -> None:
    """Short rows, one token out."""
    prompts, params = make_prompts(arguments.rows, 2), SamplingParams(temperature=0.8, max_tokens=1)
    for kind in ("local", "ray"):
        with made(arguments, kind) as replicas:
            one = measured(kind, replicas, prompts, params)
            each = 1000 * one.driver / arguments.rows
            print(f"{kind}: {arguments.rows:,} rows in {one.seconds:.1f} s; driver {each:.3f} ms a row", flush=True)


@contextmanager
def slowed(pid: int) -> Iterator[None]:
    """A process at a third of its speed."""
    over = threading.Event()

    def hold() -> None:
        while not over.wait(0.05):
            os.kill(pid, signal.SIGSTOP)
            over.wait(0.1)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def slow(arguments: argparse.Namespace) -> None:
    """By the work of both up to when one first has nothing to do, in tokens computed, and the tokens that the plan
    says: rows that both run are work that nobody asked for."""
    prompts, params = make_prompts(arguments.rows, 24), SamplingParams(temperature=0.8, max_tokens=24, ignore_eos=True)
    with made(arguments, arguments.executor) as replicas:
        name = PROGRAM if arguments.executor == "local" else ACTOR
        pids = [pid for pid, (words, _) in family(os.getpid()).items() if name in words]
        with slowed(pids[0]):
            planned = replicas.plan(prompts, params).estimates
            before, began = work(replicas), time.monotonic()
            idle, then = 0.0, before
            for _ in replicas.stream(prompts, params):
                if not replicas.crew.wanting:
                    idle, then = time.monotonic() - began, work(replicas)
            end, done = time.monotonic() - began, work(replicas)
    rates = [(b - a) / idle for a, b in zip(before, then, strict=True)]
    bound = (planned.computed_prompt_tokens + planned.output_tokens) / sum(rates)
    more = sum(done) - sum(before) - planned.computed_prompt_tokens - planned.output_tokens
    told = ", ".join(f"{rate:,.0f}" for rate in rates)
    print(
        f"tokens/s of each: {told}; end {end:.1f} s, one idle from {idle:.1f} s, bound {bound:.1f} s: "
        f"{end / bound:.3f}; {more:,} tokens more than planned"
    )


def work(replicas: Replicas) -> list[int]:
    """Tokens that each replica has computed."""
    return [one.prompt_tokens + one.output_tokens for one in replicas.replicas()]


def main(arguments: list[str] | None = None) -> int:
    """Measure one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("over", "driver", "slow"))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--kv-tokens", type=int, help="of each; small, for batches that are small beside the job")
    parser.add_argument("--executor", default="local", choices=("local", "ray"))
    options = parser.parse_args(arguments)
    {"over": over, "driver": driver, "slow": slow}[options.what](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
