"""What lossy products do to the demo model: right answers per task on held-out prompts, dense and lossy.

python bench/lossy_damage.py [--linear int4] [--count 400] [--model demo] [--dtype float32]   (prints a Markdown table)
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from transformers import AutoTokenizer

from umbel import LLM, SamplingParams
from umbel.models.families import resolve_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "demo_model"))
from evaluate import CHAT, PLAIN, chat_case, fewshot_chat, plain_case, right

LABELS = ("topic", "sentiment", "intent", "fewshot_chat", "fewshot_plain")
TASKS = (
    *LABELS,
    "copy",
    "copy_plain",
    "add",
    "add_plain",
    "extract",
    "story",
    "lookup_100",
    "lookup_300",
    "passage_150",
)
MOST = 48  # tokens of an answer


def cases_of(name: str, tokenizer: object, count: int, seed: int) -> list[tuple[str, str]]:
    """Prompts and answers of one task."""
    rng = random.Random(f"{seed}-{name}")
    if name in CHAT:
        return [chat_case(tokenizer, rng, name) for _ in range(count)]
    if name in PLAIN:
        return [plain_case(rng, PLAIN[name]) for _ in range(count)]
    return [fewshot_chat(tokenizer, rng) for _ in range(count)]


def main() -> None:
    """Both methods on the same prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--linear", default="int8", choices=("int8", "int4", "fp8"))
    parser.add_argument("--dtype", default="float32", help="of everything but these products")
    parser.add_argument("--count", type=int, default=400, help="prompts per task")
    parser.add_argument("--seed", type=int, default=4242)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(given.model))
    cases = {name: cases_of(name, tokenizer, given.count, given.seed) for name in TASKS}
    prompts = [prompt for pairs in cases.values() for prompt, _ in pairs]
    guesses = {}
    for linear in ("dense", given.linear):
        llm = LLM(given.model, dtype=given.dtype, linear=linear, allow_lossy=linear != "dense")
        outputs = llm.generate(prompts, SamplingParams(max_tokens=MOST, temperature=0.0))
        guesses[linear] = [output.outputs[0].text for output in outputs]
    print(f"| task | n | dense | {given.linear} | answers that differ |\n|---|---:|---:|---:|---:|")
    sums = dict.fromkeys(("n", "dense", "lossy", "differ"), 0)
    for at, name in enumerate(TASKS):
        low = at * given.count
        dense, lossy = (guesses[linear][low : low + given.count] for linear in ("dense", given.linear))
        good = [sum(right(name, g, a) for g, (_, a) in zip(side, cases[name], strict=True)) for side in (dense, lossy)]
        differ = sum(a != b for a, b in zip(dense, lossy, strict=True))
        print(row(name, given.count, *good, differ))
        if name in LABELS:
            for key, value in zip(sums, (given.count, *good, differ), strict=True):
                sums[key] += value
    print(row("**labels**", *sums.values()))


def row(name: str, n: int, dense: int, lossy: int, differ: int) -> str:
    """One line of the table."""
    return f"| {name} | {n} | {dense / n:.2%} | {lossy / n:.2%} | {differ / n:.2%} |"


if __name__ == "__main__":
    main()
