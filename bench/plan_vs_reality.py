"""Holds plans against what happens: ten jobs, each planned, run, and then planned and run once more.

    python bench/plan_vs_reality.py [--threads 2] [--scale 1.0] [--jobs NAME,...] [--doctor SECONDS] [--json OUT]

The models are the demo model and random weights in the shape of SmolLM2-135M (float32). History starts empty: first
`umbel doctor`'s steps are timed for each model (0: not at all), then every run teaches the plans that follow it, as it
does for users. Prompt tokens computed must be as planned; the KV peak within 5 %; of seconds (planned against the
engine's wall time) the error is shown, and whether the second plan was closer. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from umbel import LLM, SamplingParams
from umbel.config import EngineConfig
from umbel.ir.workload import Workload
from umbel.measure.step_benchmark import StepBenchmark
from umbel.models.families import resolve_model

SMOL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "eos_token_id": 0,
}
WIDTHS = {"demo": 2592, "135m": 49152}


@dataclass(frozen=True)
class Job:
    """`groups` of `rows` prompts that share `shared` tokens and have `own` of their own; each answers `n` times with
    `out` tokens (a range: between both). Every prompt stands there `copies` times."""

    model: str
    name: str
    groups: int
    rows: int
    shared: int
    own: int
    out: tuple[int, int]
    n: int = 1
    copies: int = 1
    kv_tokens: int | None = None

    def workload(self, scale: float) -> Workload:
        """Random tokens; `scale` scales the rows."""
        draw = random.Random(self.name)
        groups = max(1, round(self.groups * scale))

        def tokens(count: int) -> list[int]:
            return [draw.randrange(300, WIDTHS[self.model]) for _ in range(count)]

        heads = [tokens(self.shared) for _ in range(groups)]
        prompts = [head + tokens(self.own) for head in heads for _ in range(self.rows)] * self.copies
        draw.shuffle(prompts)
        kind = {"n": self.n, "temperature": 0.8 if self.n > 1 else 0.0, "ignore_eos": True, "seed": 7}
        params = [SamplingParams(**kind, max_tokens=draw.randint(*self.out)) for _ in prompts]
        return Workload.of(prompts, params)


JOBS = (
    Job("demo", "shared", 10, 50, 300, 20, (16, 16)),
    Job("demo", "unshared", 200, 1, 0, 120, (16, 16)),
    Job("demo", "long", 24, 1, 0, 30, (100, 300)),
    Job("demo", "duplicates", 100, 1, 0, 150, (12, 12), copies=5),
    Job("demo", "samples", 20, 1, 0, 60, (40, 40), n=8),
    Job("demo", "tight", 60, 1, 0, 200, (40, 80), kv_tokens=3000),
    Job("135m", "shared", 3, 16, 256, 24, (8, 8)),
    Job("135m", "unshared", 24, 1, 0, 120, (12, 12)),
    Job("135m", "long", 10, 1, 0, 40, (40, 90)),
    Job("135m", "tight", 16, 1, 0, 180, (24, 24), kv_tokens=1500),
)


@dataclass(frozen=True)
class Run:
    """What a plan said, and what was."""

    computed: tuple[int, int]
    kv_peak: tuple[int, int]
    steps: tuple[int, int]
    low: float
    expected: float
    high: float
    seconds: float

    @property
    def error(self) -> float:
        """The relative error of the plan: (planned - measured) / measured seconds."""
        return self.expected / self.seconds - 1


def run(job: Job, directory: str, threads: int, scale: float) -> Run:
    """Plan and run a job on a freshly loaded model."""
    kind = {"load_format": "dummy"} if job.model != "demo" else {}
    llm = LLM(directory, threads=threads, device="cpu", dtype="float32", kv_tokens=job.kv_tokens, **kind)
    workload = job.workload(scale)
    plan = llm.plan_for(workload)
    began = time.perf_counter()
    answered = sum(output.error is None for output in llm.execute(workload, plan))
    seconds = time.perf_counter() - began
    if answered != len(workload):
        raise SystemExit(f"{job}: {answered} of {len(workload)} rows answered")
    stats, said = llm.stats(), plan.estimates
    return Run(
        (said.computed_prompt_tokens, stats.computed_prompt_tokens),
        (said.kv_peak_tokens, stats.kv_peak_tokens),
        (said.steps, stats.steps),
        *said.seconds,
        seconds,
    )


def line(job: Job, first: Run, second: Run) -> str:
    """A row of the table."""
    exact = "yes" if first.computed[0] == first.computed[1] else f"{first.computed[0]} / {first.computed[1]}"
    peak = first.kv_peak[0] / first.kv_peak[1] - 1
    within = ["", " (outside)"]
    cells = (
        f"{job.model} {job.name}",
        exact,
        f"{peak:+.1%}",
        f"{first.expected:.2f} [{first.low:.2f}, {first.high:.2f}]",
        f"{first.seconds:.2f}{within[not first.low <= first.seconds <= first.high]}",
        f"{first.error:+.1%}",
        f"{second.expected:.2f}",
        f"{second.seconds:.2f}",
        f"{second.error:+.1%}",
        "yes" if abs(second.error) < abs(first.error) else "no",
    )
    return f"| {' | '.join(cells)} |"


def summary(runs: list[tuple[Job, Run, Run]]) -> list[str]:
    """Medians and worst cases."""
    first, second = ([abs(pair[i].error) for pair in runs] for i in (1, 2))
    peaks = [abs(a.kv_peak[0] / a.kv_peak[1] - 1) for _, a, _ in runs]
    closer = sum(b < a for a, b in zip(first, second, strict=True))
    inside = sum(a.low <= a.seconds <= a.high for _, a, _ in runs)
    return [
        f"computed tokens exact in {sum(a.computed[0] == a.computed[1] for _, a, _ in runs)} of {len(runs)}",
        f"KV peak: {statistics.median(peaks):.1%} off at the median, {max(peaks):.1%} at most",
        f"seconds, first run: {statistics.median(first):.1%} off at the median, {max(first):.1%} at most; "
        f"{inside} of {len(runs)} inside their interval",
        f"seconds, second run: {statistics.median(second):.1%} off at the median, {max(second):.1%} at most; "
        f"closer than the first in {closer} of {len(runs)}",
    ]


def main() -> None:
    """Run the jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument("--jobs", default="", help="model-name, by commas; all if not given")
    parser.add_argument("--doctor", type=float, default=20.0, help="seconds of timed steps per model beforehand")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    wanted = set(filter(None, asked.jobs.split(",")))
    jobs = [job for job in JOBS if not wanted or f"{job.model}-{job.name}" in wanted]
    torch.set_num_threads(asked.threads)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UMBEL_CACHE"] = str(Path(folder, "cache"))
        Path(folder, "smol").mkdir()
        Path(folder, "smol", "config.json").write_text(json.dumps(SMOL))
        places: dict[str, str] = {"demo": "demo", "135m": str(Path(folder, "smol"))}
        for model in dict.fromkeys(job.model for job in jobs):
            see_doctor(places[model], asked.threads, asked.doctor)
            for job in (j for j in jobs if j.model == model):
                act: Callable[[], Run] = lambda j=job: run(j, places[j.model], asked.threads, asked.scale)  # noqa: E731
                runs.append((job, act(), act()))
                print(line(*runs[-1]), file=sys.stderr, flush=True)
    print(f"{platform.machine()}, {asked.threads} threads, torch {torch.__version__}, scale {asked.scale}\n")
    print("| job | tokens exact | KV peak | planned s | took s | error | planned again | took | error | closer |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join([*(line(*each) for each in runs), "", *summary(runs)]))
    if asked.json:
        report = [{"job": asdict(job), "first": asdict(a), "second": asdict(b)} for job, a, b in runs]
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


def see_doctor(model: str, threads: int, seconds: float) -> None:
    """Time the model's steps, as `umbel doctor --model` does."""
    if seconds:
        config = EngineConfig(model, threads=threads, device="cpu", dtype="float32")
        found = StepBenchmark(config, resolve_model(model)).run(seconds)
        errors = f"{statistics.median(found.errors):.0%} off at the median, {found.errors.max():.0%} at most"
        print(f"doctor, {Path(model).name}: steps held out {errors}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
