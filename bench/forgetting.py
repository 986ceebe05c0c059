"""What forgetting does to the demo model: right answers per task on held-out prompts, and the most pages of KV in use.

    python bench/forgetting.py h2o:budget=0.25 lag-kv:budget=0.5,lag=32 ... [--count 40] [--tasks lookup_300 labels]

Prints a line of Markdown for dense attention, and one for each technique: the share of right answers of each task and
the most pages of 16 tokens that were in use for it (`labels` are five tasks of one word), and the tokens of prompts in
a second, those of shared runs counted for each row. Greedy, float32.
"""

from __future__ import annotations

import argparse
import time

from lossy_damage import LABELS, MOST, cases_of, right
from transformers import AutoTokenizer

from umbel import LLM, SamplingParams
from umbel.models.families import resolve_model

TASKS = ("lookup_300", "passage_150", "labels")


def main() -> None:
    """One line after the other, as they are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("techniques", nargs="*")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--count", type=int, default=40, help="prompts per task, of each of those that are labels")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seed", type=int, default=4242)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(given.model))
    cases = {}
    for task in given.tasks:
        names = LABELS if task == "labels" else (task,)
        cases[task] = [(name, *c) for name in names for c in cases_of(name, tokenizer, given.count, given.seed)]
    print("| technique | " + " | ".join(f"{task} ({len(found)})" for task, found in cases.items()) + " | tokens/s |")
    print("|---|" + "---:|" * (len(cases) + 1))
    for technique in ("", *given.techniques):
        print(f"| {technique or 'dense'} | {' | '.join(measured(given.model, technique, cases))} |", flush=True)


def measured(model: str, technique: str, cases: dict[str, list[tuple[str, str, str]]]) -> list[str]:
    """What a technique makes of the cases."""
    lossy = {"technique": technique, "allow_lossy": True} if technique else {}
    figures, seconds, tokens = [], 0.0, 0
    for found in cases.values():
        with LLM(model, dtype="float32", **lossy) as llm:
            began = time.perf_counter()
            outputs = llm.generate([prompt for _, prompt, _ in found], SamplingParams(max_tokens=MOST, temperature=0.0))
            seconds += time.perf_counter() - began
            tokens += sum(len(output.prompt_token_ids) for output in outputs)
            pages = llm.engine.stats().kv_peak_tokens // 16
        good = sum(
            right(name, output.outputs[0].text, answer)
            for (name, _, answer), output in zip(found, outputs, strict=True)
        )
        figures.append(f"{good / len(found):.0%}, {pages}")
    return [*figures, f"{tokens / seconds:,.0f}"]


if __name__ == "__main__":
    main()
