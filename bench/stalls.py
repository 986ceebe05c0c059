"""What interactive requests feel under several rules of the scheduler, on a virtual clock: one trace, one table.

Replays a slice of a trace of arrivals (CSV with arrival_s, prompt_tokens, output_tokens, as Azure publishes them) on
the production scheduler, over a device that takes the seconds of the price list; nothing is computed. TTFT: from a
request's coming to its first token; TBT: between two tokens of one answer. Goodput: requests a second whose first token
came within --ttft, and none of whose gaps was above --tbt (with a twentieth more, as a target is held by prediction).

    python bench/stalls.py --trace azure2023_conv.csv.gz [--seconds 120] [--speed 1.0] [--model llama-3.1-8b]
        [--machine h100] [--tbt 0.03] [--ttft 1.0] [--batch 0]

--batch adds as many requests of a lower priority at the start, which no one watches. "A tenth" is what holds without a
target: rows of the batch may make a step a tenth longer while a watched row decodes. "Layered" is there for mixtures of
experts: prompts may pass a group of layers in each step.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.devices import machine_of
from umbel.cost.quantised import price_of
from umbel.cost.roofline import Price
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.sched.lot import Standing
from umbel.sched.policies.layered import LayerPace
from umbel.sched.policies.policy import Policy
from umbel.sched.policies.stall_free import StepPace
from umbel.sim.online import FixedPrices, Replay, Requests
from umbel.sim.shapes import SHAPES

Floats = NDArray[np.float64]

CHUNK, MOST, SLACK = 8192, 8192, 1.05  # tokens of a step, tokens of a request; what a gap may be above its target
BATCH_PROMPT, BATCH_ANSWER = 600, 200  # tokens of a request of the batch


@dataclass(frozen=True)
class Felt:
    """What the requests of a replay saw: seconds to first tokens, between tokens, and which of them met both."""

    ttft: Floats
    tbt: Floats
    good: float
    tokens_per_second: float
    batch_tokens_per_second: float


def read(path: Path, seconds: float, speed: float) -> tuple[Floats, list[int], list[int]]:
    """Arrivals of the first `seconds` of a trace, played `speed` times as fast, and the tokens of each."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if float(row["arrival_s"]) < seconds * speed]
    sizes = [(int(row["prompt_tokens"]), max(int(row["output_tokens"]), 1)) for row in rows]
    fits = [i for i, size in enumerate(sizes) if size[0] > 0 and sum(size) <= MOST]
    at = np.array([float(rows[i]["arrival_s"]) for i in fits]) / speed
    return at, [sizes[i][0] for i in fits], [sizes[i][1] for i in fits]


def requests_of(at: Floats, prompts: list[int], answers: list[int], batch: int) -> Requests:
    """Requests that share nothing, behind `batch` less urgent ones that are there from the start."""
    sizes = [BATCH_PROMPT] * batch + prompts
    rng = np.random.default_rng(0)
    tokens = [np.append(i, rng.integers(0, 1000, size - 1)) for i, size in enumerate(sizes)]
    load = Workload.of([t.tolist() for t in tokens], SamplingParams(temperature=0.0, max_tokens=2048))
    urgent = np.arange(len(sizes)) >= batch
    standing = replace(Standing.alike(len(sizes)), priority=np.where(urgent, 0, 10))
    lengths = np.array([BATCH_ANSWER] * batch + answers)
    return Requests(np.append(np.zeros(batch), at), load, lengths, urgent, standing)


def replay(requests: Requests, price: Price, policy: Policy, kv_tokens: int, ttft: float, tbt: float) -> Felt:
    """Play the requests under a policy."""
    played = Replay(requests, price, policy, kv_tokens=kv_tokens, chunk=CHUNK)
    played.run()
    watched = np.flatnonzero(requests.watched).tolist()
    firsts = np.array([played.times[i][0] - requests.at[i] for i in watched])
    gaps = [np.diff(played.times[i]) for i in watched]
    good = sum(f <= ttft and g.max(initial=0.0) <= tbt * SLACK for f, g in zip(firsts, gaps, strict=True))
    last = max(played.times[i][-1] for i in watched)
    total = int(requests.lengths[watched].sum())
    batch = int(requests.lengths[~requests.watched].sum())
    return Felt(firsts, np.concatenate(gaps), good / last, total / last, batch / played.now)


def line(name: str, felt: Felt) -> str:
    """A line of the table."""
    times = [*np.percentile(felt.ttft, [50, 90, 99]), *np.percentile(felt.tbt, [50, 99]), felt.tbt.max()]
    shown = " | ".join(f"{1000 * value:,.0f}" if i < 3 else f"{1000 * value:,.1f}" for i, value in enumerate(times))
    return (
        f"| {name} | {shown} | {felt.good:.2f} | {felt.tokens_per_second:,.0f} | {felt.batch_tokens_per_second:,.0f} |"
    )


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trace", type=Path, required=True)
    options.add_argument("--seconds", type=float, default=120.0)
    options.add_argument("--speed", type=float, default=1.0)
    options.add_argument("--model", choices=SHAPES, default="llama-3.1-8b")
    options.add_argument("--machine", default="h100")
    options.add_argument("--tbt", type=float, default=0.03)
    options.add_argument("--ttft", type=float, default=1.0)
    options.add_argument("--batch", type=int, default=0)
    asked = options.parse_args()
    spec, machine = SHAPES[asked.model], machine_of(asked.machine)
    price = price_of(spec, EngineConfig("demo", dtype="bfloat16"), machine)
    kv_tokens = int((machine.memory_bytes * 0.9 - price.shape.weight_bytes) / price.shape.kv_bytes)
    requests = requests_of(*read(asked.trace, asked.seconds, asked.speed), asked.batch)
    pace = StepPace(FixedPrices(price), asked.tbt)
    rules = {
        "stall-free": Policy(queue="priority", pace=pace),
        "a tenth": Policy(queue="priority", pace=StepPace(FixedPrices(price), None)),
        "whole steps": Policy(queue="priority"),
        "prefill-first": Policy(queue="priority", step="prefill-first"),
    }
    if spec.experts is not None:
        layers = LayerPace(FixedPrices(price), asked.tbt, spec.n_layers)
        rules["layered"] = Policy(queue="priority", step="layered", pace=layers)
    print(f"{len(requests.at)} requests in {asked.seconds:g} s, {asked.model} on {asked.machine}\n")
    print("| rule | TTFT p50 ms | p90 | p99 | TBT p50 ms | p99 | worst | goodput /s | tokens/s | of the batch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, policy in rules.items():
        print(line(name, replay(requests, price, policy, kv_tokens, asked.ttft, asked.tbt)), flush=True)


if __name__ == "__main__":
    main()
