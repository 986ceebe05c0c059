"""What drafters propose and what comes true, by task: `python -m bench.acceptance [--rows 200] [--running 8]`.

Prompts of the demo model's tasks, and the example job; greedy. Drafters take turns with plain decoding; in float32
their answers must be equal. Of each: steps, tokens checked and how many came true, and how many times faster it is (the
least seconds of --repeats, by the clock and by the processor). History starts empty, so that nothing is known of a
drafter but what the job teaches. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tools.demo_model.evaluate import cases_of
from transformers import AutoTokenizer

from umbel import LLM, SamplingParams
from umbel.engine import build
from umbel.models.families import resolve_model
from umbel.sched.policies.policy import Policy

EXAMPLES = "examples/tasks.jsonl"
TASKS = {"extract": 16, "topic": 6, "copy": 32, "lookup_100": 16, "story": 48, EXAMPLES: 24}  # tokens of an answer
DRAFTERS = ("batch", "ngram", "lookup", "model:draft")


@dataclass
class Run:
    """One run: answers, steps, tokens checked and come true, seconds by the clock and of the processor."""

    answers: list[tuple[int, ...]]
    steps: int
    drafted: int
    accepted: int
    wall: float
    used: float


def prompts_of(task: str, tokenizer: Any, rows: int) -> list[list[int]]:
    """Prompts of a task as tokens."""
    if task != EXAMPLES:
        texts = [prompt for prompt, _ in cases_of(task, tokenizer, rows, 0)]
    else:
        chats = [json.loads(line)["messages"] for line in Path(EXAMPLES).read_text().splitlines()[:rows]]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"])


def once(drafter: str, prompts: list[list[int]], params: SamplingParams, asked: argparse.Namespace) -> Run:
    """Generate with a drafter, by an engine that knows nothing yet."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["UMBEL_CACHE"] = cache
        with LLM("demo", dtype=asked.dtype, threads=asked.threads, speculate=drafter) as llm:
            llm.generate(prompts[:2], SamplingParams(max_tokens=2))  # what a process pays for once
            began, before, used = time.perf_counter(), llm.stats(), time.process_time()
            outputs = llm.generate(prompts, params)
            wall, used, stats = time.perf_counter() - began, time.process_time() - used, llm.stats()
        answers = [output.outputs[0].token_ids for output in outputs]
        return Run(answers, stats.steps - before.steps, stats.drafted_tokens, stats.accepted_tokens, wall, used)


def lines(task: str, asked: argparse.Namespace, tokenizer: Any) -> Iterator[str]:
    """Plain decoding and the drafters by turns; a line for each of these."""
    prompts, drafters = prompts_of(task, tokenizer, asked.rows), asked.drafters.split(",")
    params = SamplingParams(temperature=0.0, max_tokens=TASKS[task])
    turns = [{name: once(name, prompts, params, asked) for name in ("off", *drafters)} for _ in range(asked.repeats)]
    plain = turns[0]["off"]
    assert asked.dtype != "float32" or all(run.answers == plain.answers for turn in turns for run in turn.values())
    for name in drafters:
        got = turns[0][name]
        came = f"{got.accepted / got.drafted:.0%}" if got.drafted else "-"
        wall, used = (faster(turns, name, clock) for clock in ("wall", "used"))
        steps = f"{got.steps:,} | {plain.steps:,} | {got.drafted:,}"
        yield f"| {task} | `{name}` | {steps} | {came} | {wall:.2f} | {used:.2f} |"


def faster(turns: list[dict[str, Run]], name: str, clock: str) -> float:
    """How many times faster than plain decoding a drafter was, by the least of all turns."""
    plain, got = (min(getattr(turn[one], clock) for turn in turns) for one in ("off", name))
    return float(plain / got)


def main() -> None:
    """A line for each task and drafter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--running", type=int, default=8, help="samples that run at once, at most")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--drafters", default=",".join(DRAFTERS))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    build.Policy = partial(Policy, max_running=asked.running)  # type: ignore[misc,assignment]
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("demo"))
    print("| task | drafter | steps | without | checked | came true | times faster (wall) | (processor) |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for task in asked.tasks.split(","):
        for line in lines(task, asked, tokenizer):
            print(line, flush=True)


if __name__ == "__main__":
    main()
