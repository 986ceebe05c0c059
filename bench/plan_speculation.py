"""Holds plans with proposals against what happens: five jobs of the demo model, each planned behind runs that taught.

    python -m bench.plan_speculation [--rows 120] [--runs 2] [--threads 1] (prints Markdown)

History starts empty for each job. Of its steps and seconds the plan's value and interval stand beside those of the
run; the interval of steps is that of the plan's output tokens. Seconds are the engine's wall time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

from tools.demo_model.evaluate import cases_of
from transformers import AutoTokenizer

from umbel import LLM, SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.models.families import resolve_model

JOBS = (  # task, drafter, tokens of an answer, tokens of a step
    ("extract", "lookup", 24, 12),
    ("topic", "lookup", 6, 12),
    ("copy", "lookup", 32, 12),
    ("lookup_100", "ngram", 16, 64),
    ("story", "model:draft", 48, 12),
)


def main() -> None:
    """A line for each job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--runs", type=int, default=2, help="before the one that is compared")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("demo"))
    print("| job | drafter | steps planned | steps | seconds planned | seconds | came true |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for task, drafter, most, chunk in JOBS:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["UMBEL_CACHE"] = cache
            for run in range(asked.runs + 1):
                prompts = [prompt for prompt, _ in cases_of(task, tokenizer, asked.rows, run)]
                options = {"dtype": "float32", "threads": asked.threads, "chunk": chunk, "speculate": drafter}
                with LLM("demo", **options) as llm:  # type: ignore[arg-type]
                    told = once(llm, prompts, SamplingParams(max_tokens=most, temperature=0.0))
            print(f"| {task} | `{drafter}` | {told} |", flush=True)


def once(llm: LLM, prompts: list[str], params: SamplingParams) -> str:
    """Plan and run; the figures of both."""
    ids = AutoTokenizer.from_pretrained(resolve_model("demo"))(prompts)["input_ids"]
    plan = llm.engine.plan_for(Workload.of(ids, params))
    began = time.perf_counter()
    llm.generate(ids, params)
    seconds, stats = time.perf_counter() - began, llm.stats()
    came = f"{stats.accepted_tokens:,} of {stats.drafted_tokens:,}"
    return f"{steps_of(plan)} | {stats.steps:,} | {seconds_of(plan)} | {seconds:.2f} | {came}"


def steps_of(plan: Plan) -> str:
    """Steps of a plan with their interval: as many times more or fewer as output tokens may be."""
    found = plan.estimates
    low, high = (found.steps * tokens / max(found.output_tokens, 1) for tokens in found.output_range)
    return f"{found.steps:,} [{low:,.0f}, {high:,.0f}]"


def seconds_of(plan: Plan) -> str:
    """Seconds of a plan with their interval."""
    low, expected, high = plan.estimates.seconds
    return f"{expected:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
