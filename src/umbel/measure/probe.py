"""Steps made to be timed: decoding rows and prompts of many shapes over KV of arbitrary content, on the real runner."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from umbel.cost.load import Load
from umbel.cost.meter import Meter
from umbel.cost.roofline import Price
from umbel.cost.windows import Windows
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Sampling, Step
from umbel.runner.base import Runner, run_step

Ints = NDArray[np.int64]

PAGE_SIZE = 16


@dataclass(frozen=True, slots=True)
class Probe:
    """The shape of one step.

    `count`: sequences.
    `past`: tokens before the new ones in each of them, on average.
    `new`: tokens that each computes.
    `shared`: tokens that all of them share, before those.
    `temperature`: of their draws.
    """

    count: int
    past: int
    new: int = 1
    shared: int = 0
    temperature: float = 0.0

    @property
    def tokens(self) -> int:
        """The number of tokens computed."""
        return self.count * self.new

    @property
    def pasts(self) -> Ints:
        """The past of each sequence (`[count]`): half to one and a half times the average, as lengths differ."""
        spread = self.past if self.count > 1 else 0
        return self.past - spread // 2 + np.arange(self.count) * 31 % (spread + 1)

    @property
    def context(self) -> int:
        """Positions of the longest sequence once the step has run."""
        return self.shared + int(self.pasts.max()) + self.new

    @property
    def pages(self) -> int:
        """The number of KV pages that the step needs."""
        return -(-self.shared // PAGE_SIZE) + int((-(-(self.pasts + self.new) // PAGE_SIZE)).sum())

    def __str__(self) -> str:
        kind = f"{self.count} x {self.new}" if self.new > 1 else f"decode {self.count}"
        after = f"{kind} after {self.past}" + (f" + {self.shared} shared" if self.shared else "")
        return after + (" at random" if self.temperature else "")


# Alone and many, short and long contexts, apart and shared: each cost that a step can have stands out in some of them.
PROBES = (
    *(Probe(1, past) for past in (15, 500, 1500)),
    *(Probe(2, 120), Probe(4, 60), Probe(4, 900), Probe(8, 30), Probe(8, 400)),
    *(Probe(16, 15), Probe(16, 250), Probe(32, 100), Probe(64, 40), Probe(128, 24)),
    *(Probe(16, 32, shared=512), Probe(64, 12, shared=256), Probe(24, 10, shared=1024)),
    *(Probe(12, 40, temperature=1.0), Probe(48, 60, temperature=1.0)),
    *(Probe(1, 0, new) for new in (24, 64, 192, 512)),
    *(Probe(4, 0, 100), Probe(16, 0, 20), Probe(1, 1000, 128), Probe(8, 0, 32, 384), Probe(40, 0, 6, 128)),
)


def fitting(spec: ModelSpec, price: Price, pages: int, seconds: float) -> tuple[Probe, ...]:
    """The probes that fit the context and `pages` of KV, and that take at most a tenth of `seconds` by their price."""
    fits = (p for p in PROBES if p.context <= spec.max_positions and p.pages <= pages)
    return tuple(p for p in fits if float(price.each(_load_of([p], spec))[0]) <= seconds / 10)


@dataclass(frozen=True, slots=True)
class Timed:
    """The probes that were timed: the load of each step and the seconds that it took (`[probes]`)."""

    probes: tuple[Probe, ...]
    load: Load
    seconds: NDArray[np.float64]

    def pick(self, which: NDArray[np.bool_]) -> Timed:
        """The probes that `which` selects."""
        probes = tuple(p for p, wanted in zip(self.probes, which.tolist(), strict=True) if wanted)
        return Timed(probes, self.load.pick(which), self.seconds[which])


def time_probes(runner: Runner, probes: Sequence[Probe], spec: ModelSpec, seconds: float) -> Timed:
    """Run all probes repeatedly until `seconds` are over, at least twice. The time of each is the median of its runs
    except the first, which includes one-off costs."""
    steps = [make_step(p, spec.vocab_size) for p in probes]
    times: list[list[float]] = [[] for _ in probes]
    reads = [0] * len(probes)
    stop = time.perf_counter() + seconds
    for i in _rounds(times, stop):
        began = time.perf_counter()
        reads[i] = run_step(runner, steps[i]).kv_tokens_read
        times[i].append(time.perf_counter() - began)
    meter = Meter(Windows.of(spec))
    for step, read, each in zip(steps, reads, times, strict=True):
        meter.add(step, read, median(each[1:]))
    return Timed(tuple(probes), meter.load(), meter.seconds())


def _rounds(times: list[list[float]], stop: float) -> Iterator[int]:
    """The probe to run next: two rounds over all, then more while there is time for another run of it."""
    for _ in range(2):
        yield from range(len(times))
    while True:
        ran = 0
        for i, each in enumerate(times):
            if time.perf_counter() + each[-1] < stop and len(each) < 12:
                ran += 1
                yield i
        if not ran:
            return


def _load_of(probes: Sequence[Probe], spec: ModelSpec) -> Load:
    """The load of probes, as far as it is known without laying them out."""
    meter = Meter(Windows.of(spec))
    for p in probes:
        meter.add(make_step(p, spec.vocab_size), p.shared + p.count * (p.past + p.new), 1.0)
    return meter.load()


def make_step(p: Probe, vocab_size: int) -> Step:
    """The probe as a step: the shared run is a node without rows, each sequence a node of its own below it."""
    roots = np.zeros(1 if p.shared else 0, np.int64)
    lengths = p.pasts + p.new
    last = np.arange(1, p.count + 1) * p.new
    pages = np.append(np.full_like(roots, -(-p.shared // PAGE_SIZE)), -(-lengths // PAGE_SIZE))
    rows = np.arange(p.tokens)
    return Step(
        tokens=rows % vocab_size,
        positions=p.shared + np.repeat(p.pasts, p.new) + rows % p.new,
        fresh=np.ones(p.tokens, bool),
        parent=np.append(roots - 1, np.full(p.count, len(roots) - 1)),
        start=np.append(roots, np.full(p.count, p.shared)),
        end=np.append(roots + p.shared, p.shared + lengths),
        row_begin=np.append(roots, last - p.new),
        row_end=np.append(roots, last),
        below_end=np.append(roots + p.tokens, last),
        pages=np.arange(p.pages),
        page_begin=np.cumsum(pages) - pages,
        page_size=PAGE_SIZE,
        sampling=_sampling(p, last - 1),
    )


def _sampling(p: Probe, at: Ints) -> Sampling:
    """One draw behind each sequence's last token."""
    n, zeros = p.count, np.zeros(p.count, np.int64)
    return Sampling(
        at=at,
        temperature=np.full(n, p.temperature),
        top_k=zeros,
        top_p=np.ones(n),
        min_p=np.zeros(n),
        streams=zeros,
        keys=np.arange(n),
        samples=zeros,
        positions=p.shared + p.pasts + p.new,
        logprobs=np.full(n, -1),
    )
