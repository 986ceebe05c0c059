"""What lossy products or KV do to the demo model: right answers per task on held-out prompts, with and without them.

python bench/lossy_damage.py --linear int4 | --kv-cache-dtype fp8 [--count 400] [--dtype float32] (prints Markdown)
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
    parser.add_argument("--linear", default="dense", choices=("dense", "int8", "int4", "int4-head8", "fp8"))
    parser.add_argument("--kv-cache-dtype", default="auto", choices=("auto", "fp8", "int8"))
    parser.add_argument("--dtype", default="float32", help="of everything else")
    parser.add_argument("--count", type=int, default=400, help="prompts per task")
    parser.add_argument("--seed", type=int, default=4242)
    given = parser.parse_args()
    if (given.linear, given.kv_cache_dtype) == ("dense", "auto"):
        parser.error("nothing lossy was asked for: give --linear or --kv-cache-dtype")
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(given.model))
    cases = {name: cases_of(name, tokenizer, given.count, given.seed) for name in TASKS}
    prompts = [prompt for pairs in cases.values() for prompt, _ in pairs]
    guesses = {}
    asked = {"linear": given.linear, "kv_cache_dtype": given.kv_cache_dtype, "allow_lossy": True}
    for name, options in (("exact", {}), ("lossy", asked)):
        llm = LLM(given.model, dtype=given.dtype, **options)
        outputs = llm.generate(prompts, SamplingParams(max_tokens=MOST, temperature=0.0))
        guesses[name] = [output.outputs[0].text for output in outputs]
    what = " and ".join(llm.config.lossy)
    print(f"| task | n | exact | {what} | answers that differ |\n|---|---:|---:|---:|---:|")
    sums = dict.fromkeys(("n", "exact", "lossy", "differ"), 0)
    for at, name in enumerate(TASKS):
        low = at * given.count
        exact, lossy = (side[low : low + given.count] for side in guesses.values())
        good = [sum(right(name, g, a) for g, (_, a) in zip(side, cases[name], strict=True)) for side in (exact, lossy)]
        differ = sum(a != b for a, b in zip(exact, lossy, strict=True))
        print(row(name, given.count, *good, differ))
        if name in LABELS:
            for key, value in zip(sums, (given.count, *good, differ), strict=True):
                sums[key] += value
    print(row("**labels**", *sums.values()))


def row(name: str, n: int, exact: int, lossy: int, differ: int) -> str:
    """One line of the table."""
    return f"| {name} | {n} | {exact / n:.2%} | {lossy / n:.2%} | {differ / n:.2%} |"


if __name__ == "__main__":
    main()
