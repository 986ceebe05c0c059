"""What following forms costs: rows that are held to JSON of a schema, beside the same rows without.

    python bench/forms.py MODEL [--rows 64] [--tokens 32] [--schemas 64] [--of objects|strings] [--json OUT]

Rows of 16 tokens write `--tokens` tokens each. With a form, row i is held to schema i modulo `--schemas`, a list that
does not end within an answer: of objects with a string, a number, a list and an enumeration under keys of its own, half
of whose tokens are certain and computed several in a step; or of strings, few of whose tokens are, which leaves the
cost of masks. Processor seconds of all threads, in turn; a first call compiles the forms and does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from umbel import LLM, SamplingParams, StructuredOutputsParams


def main() -> None:
    """Print each turn and the medians; with --json, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--schemas", type=int, default=64)
    parser.add_argument("--of", choices=("objects", "strings"), default="objects")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    turns = list[dict[str, float]]()
    with LLM(asked.model, dtype=asked.dtype, device="cpu", threads=1) as llm:
        compiling = spent(llm, asked, seed=10_000, formed=True, tokens=1)["seconds"]
        print(f"compiling {asked.schemas} forms, and a token of {asked.rows} rows: {compiling:.2f} s")
        for turn in range(asked.repeats):
            found = {formed: spent(llm, asked, turn, formed=formed) for formed in (turn % 2 == 0, turn % 2 == 1)}
            turns.append(beside(found[True], found[False]))
            print(", ".join(f"{name} {value:,.4g}" for name, value in turns[-1].items()), flush=True)
    for name in turns[0]:
        print(f"median of {name}: {statistics.median(turn[name] for turn in turns):,.4g}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(turns, indent=1))


def schema(number: int, of: str) -> dict[str, Any]:
    """A list that does not end within an answer."""
    if of == "strings":
        return {"type": "array", "items": {"type": "string", "maxLength": 20 + number}, "minItems": 1_000}
    fields = {
        f"name{number}": {"type": "string", "maxLength": 12},
        f"size{number}": {"type": "integer", "minimum": 0, "maximum": 99_999},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        "kind": {"enum": ["red", "green", "blue", f"kind {number}"]},
    }
    item = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "array", "items": item, "minItems": 1_000}


def spent(
    llm: LLM, asked: argparse.Namespace, seed: int, *, formed: bool, tokens: int | None = None
) -> dict[str, float]:
    """Processor seconds, and what went through the model, of one call."""
    drawn = np.random.default_rng(seed).integers(3, 30_000, (asked.rows, 16))
    forms = [
        StructuredOutputsParams(json=schema(i, asked.of), disable_any_whitespace=True) for i in range(asked.schemas)
    ]
    most = tokens or asked.tokens
    params = [
        SamplingParams(
            temperature=0.8, seed=i, max_tokens=most,
            **({"structured_outputs": forms[i % len(forms)]} if formed else {"ignore_eos": True}),
        )
        for i in range(asked.rows)
    ]  # fmt: skip
    before, began = llm.stats(), time.process_time()
    outputs = llm.generate([list(map(int, row)) for row in drawn], params, use_tqdm=False)
    seconds, after = time.process_time() - began, llm.stats()
    assert all(len(output.outputs[0].token_ids) == most for output in outputs)
    names = ("output_tokens", "forced_tokens", "steps")
    return {"seconds": seconds} | {name: getattr(after, name) - getattr(before, name) for name in names}


def beside(formed: dict[str, float], plain: dict[str, float]) -> dict[str, float]:
    """Of one turn: seconds, the share of certain tokens, and speeds against those without forms."""
    each = {name: found["seconds"] / found["steps"] for name, found in (("formed", formed), ("plain", plain))}
    return {
        "seconds with forms": formed["seconds"],
        "seconds without": plain["seconds"],
        "certain tokens": formed["forced_tokens"] / formed["output_tokens"],
        "speed in tokens": plain["seconds"] / formed["seconds"],
        "steps with forms": formed["steps"],
        "steps without": plain["steps"],
        "speed in steps": each["plain"] / each["formed"],
    }


if __name__ == "__main__":
    main()
