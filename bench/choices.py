"""Scores the choices of MMLU questions: how many tokens that takes, and how long beside lm-evaluation-harness.

    python bench/choices.py MODEL DATA [--questions 200] [--subjects 8] [--peer-questions N] [--threads N] [--json OUT]

DATA is a folder with tasks/mmlu_test.jsonl.gz; without it the benchmark is left out, by name. The first five questions
of a subject are its shots, and what is scored are the four answers as texts. lm-evaluation-harness (its `hf` model,
float32, on the same requests) is left out, by name, where `pip install lm-eval` was not run. Both are timed without
loading; differences of their log-probabilities are printed, and are those of two float32 programs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from umbel import LLM

SHOTS = 5


def main() -> int:
    """Print the figures; with --json, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--peer-questions", type=int, help="The first so many of them for the harness [all].")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    file = asked.data / "tasks" / "mmlu_test.jsonl.gz"
    if not file.exists():
        print(f"left out: {file} is not there", file=sys.stderr)
        return 0
    torch.set_num_threads(asked.threads)
    pairs = questions(file, asked.subjects, asked.questions)
    few = pairs[: asked.peer_questions]
    figures = score(asked.model, pairs, asked.threads)
    peer = harness(asked.model, few)
    if peer is None:
        print("left out: lm-evaluation-harness is not installed (pip install lm-eval)", file=sys.stderr)
    else:
        figures |= compare(figures if len(few) == len(pairs) else score(asked.model, few, asked.threads), peer)
    figures.pop("logprobs")
    print("\n".join(f"{name:<40}{value:>14,.4g}" for name, value in figures.items()))
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=1))
    return 0


def questions(file: Path, subjects: int, count: int) -> list[tuple[str, list[str]]]:
    """Prompts of five shots and a question, and the four answers, a subject after the other."""
    by_subject: dict[str, list[Any]] = defaultdict(list)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            by_subject[row["subject"]].append(row)
    found = []
    for subject, rows in islice(by_subject.items(), subjects):
        head = f"The following are questions about {subject.replace('_', ' ')}.\n\n"
        shots = head + "".join(f"{_question(row)} {row['choices'][row['answer']]}\n\n" for row in rows[:SHOTS])
        asked = islice(rows, SHOTS, SHOTS + -(-count // subjects))
        found.append([(shots + _question(row), [f" {choice}" for choice in row["choices"]]) for row in asked])
    return list(chain.from_iterable(found))[:count]


def _question(row: Any) -> str:
    return f"Question: {row['question'].strip()}\nAnswer:"


def score(model: Path, pairs: Sequence[tuple[str, list[str]]], threads: int) -> dict[str, Any]:
    """By Umbel: tokens and seconds."""
    with LLM(str(model), dtype="float32", device="cpu", threads=threads) as llm:
        llm.score([pairs[0][0][:200]], [" a"])  # what is made when it is first used
        before, began = llm.stats(), time.perf_counter()
        found = llm.score([prompt for prompt, _ in pairs], [choices for _, choices in pairs])
        seconds, after = time.perf_counter() - began, llm.stats()
    whole = after.prompt_tokens - before.prompt_tokens
    computed = after.computed_prompt_tokens - before.computed_prompt_tokens + after.recomputed_tokens
    return {
        "questions": len(pairs),
        "tokens of one full prompt a choice": whole,
        "tokens computed": computed,
        "times fewer": whole / computed,
        "seconds": seconds,
        "questions a second": len(pairs) / seconds,
        "logprobs": [score.logprob for scores in found for score in scores],
    }


def harness(model: Path, pairs: Sequence[tuple[str, list[str]]]) -> dict[str, Any] | None:
    """By lm-evaluation-harness: seconds, and its log-probabilities; None where it is not installed."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=8)
    requests = [
        Instance("loglikelihood", {}, (prompt, choice), i)
        for prompt, choices in pairs
        for i, choice in enumerate(choices)
    ]
    lm.loglikelihood(requests[:1], disable_tqdm=True)
    began = time.perf_counter()
    found = lm.loglikelihood(requests, disable_tqdm=True)
    return {"seconds": time.perf_counter() - began, "logprobs": [logprob for logprob, _ in found]}


def compare(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """The figures of both on the same questions."""
    both = zip(ours["logprobs"], peer["logprobs"], strict=True)
    return {
        "questions beside the harness": ours["questions"],
        "our seconds for them": ours["seconds"],
        "the harness's seconds": peer["seconds"],
        "times faster": peer["seconds"] / ours["seconds"],
        "largest difference of a log-probability": max(abs(one - other) for one, other in both),
    }


if __name__ == "__main__":
    sys.exit(main())
