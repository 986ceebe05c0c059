"""Tries every causal type of the installed transformers on a tiny random model: who computes it, and are tokens equal?

    python -m tools.model_types [--out types.json] [type...]

A type that is not refused answers a batch of prompts with shared beginnings, in small chunks and a tight pool, and each
answer is compared with what transformers generates for that prompt alone, greedy in float32. Native types run through
transformers as well. What cannot be made from its own config class by tests/tiny_types.py is said to be so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import transformers

from tests.oracle.hf import agreement, greedy, prompts_around_borders
from tests.tiny_types import VOCAB_SIZE, save_tiny, tiny_config, tiny_module
from umbel import LLM, SamplingParams
from umbel.errors import ModelError, UsageError
from umbel.models.hosted.classes import class_of
from umbel.models.hosted.fate import fate_of, model_types

PROMPTS, TOKENS, LONGEST = 12, 12, 65


@dataclass(frozen=True)
class Row:
    """What became of a type: `way` as in Fate or "not made"; counts of answers that were the same, or not."""

    model_type: str
    way: str
    reason: str
    same: int = 0
    excused: int = 0
    different: int = 0


def tried(model_type: str, directory: Path) -> Row:
    """One type, through transformers."""
    fate = fate_of(model_type)
    try:
        model_class = class_of(model_type)
    except ModelError as error:
        return Row(model_type, fate.way, str(error))
    try:
        module = tiny_module(model_class, tiny_config(model_type))
        save_tiny(directory, module)
    except Exception as error:
        return Row(model_type, "not made", f"{type(error).__name__}: {error}"[:200])
    try:
        llm = LLM(str(directory), dtype="float32", model_impl="transformers", kv_tokens=160, chunk=48)
    except (ModelError, UsageError) as error:
        return Row(model_type, "refused", str(error).replace(str(directory), "DIR"))
    prompts = prompts_around_borders(7, PROMPTS, VOCAB_SIZE, LONGEST)
    outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=TOKENS), use_tqdm=False)
    wanted = greedy(directory, prompts, TOKENS, module)
    found = Counter(agreement(o.outputs[0].token_ids, w) for o, w in zip(outputs, wanted, strict=True))
    llm.close()
    return Row(model_type, fate.way, model_class.__name__, found["same"], found["excused"], found["different"])


def main() -> None:
    """Print a line for each type, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    rows = []
    for model_type in asked.types or model_types():
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = tried(model_type, Path(folder))
            except Exception as error:
                row = Row(model_type, "FAILED", f"{type(error).__name__}: {error}"[:300])
        rows.append(row)
        counts = f"{row.same} same, {row.excused} excused, {row.different} different"
        seconds = time.perf_counter() - began
        print(f"{row.model_type:28} {row.way:12} {counts} {row.reason} ({seconds:.1f} s)", flush=True)
    print(dict(Counter(row.way for row in rows)), sum(row.different for row in rows), "answers differ")
    if asked.out:
        asked.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
