"""What adapters cost: rows of many adapters, planned adapter by adapter, beside the same rows of the model alone.

    python -m bench.adapters MODEL [--adapters 50] [--rows 2000] [--rank 16] [--tokens 16] [--repeats 2]

Random adapters of all seven modules are written in PEFT's layout; row i asks for adapter i modulo their number, so that
the plan has to bring rows of one adapter together. Prompts of `--prompt` random tokens share nothing. Each turn loads
the model twice, with adapters first or last; what is timed is the call alone, reading adapters from their files
included. Prints processor seconds, their ratio, and how often adapters were read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.adapters import write_adapter
from umbel import LLM, SamplingParams
from umbel.models.families import read_spec, resolve_model


def random_prompts(asked: argparse.Namespace, vocabulary: int, seed: int) -> list[list[int]]:
    """Token ids of prompts."""
    drawn = np.random.default_rng(seed).integers(3, min(vocabulary, 30_000), (asked.rows, asked.prompt))
    return [list(map(int, row)) for row in drawn]


def one_turn(
    asked: argparse.Namespace, prompts: list[list[int]], given: Mapping[str, str], *, adapters_first: bool
) -> dict[str, float]:
    """Processor seconds of both, and how often adapters were read."""
    found: dict[bool, tuple[float, int]] = {}
    for adapted in (adapters_first, not adapters_first):
        found[adapted] = spent(asked, prompts, given if adapted else {})
    (mine, loads), (base, _) = found[True], found[False]
    return {"adapters": mine, "base": base, "base / adapters": base / mine, "loads": loads}


def spent(asked: argparse.Namespace, prompts: list[list[int]], given: Mapping[str, str]) -> tuple[float, int]:
    """Processor seconds of the call, and how often adapters were read."""
    names = list(given) or [None]
    params = [
        SamplingParams(temperature=0.0, max_tokens=asked.tokens, ignore_eos=True, lora=names[i % len(names)])
        for i in range(len(prompts))
    ]
    more = {"lora": dict(given)} if given else {}
    with LLM(asked.model, dtype=asked.dtype, device="cpu", threads=1, **more) as llm:
        llm.generate([prompts[0]], SamplingParams(max_tokens=2), use_tqdm=False)  # what is made when it is first used
        began = time.process_time()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds, loads = time.process_time() - began, llm.stats().adapter_loads
    assert all(len(output.outputs[0].token_ids) == asked.tokens for output in outputs)
    return seconds, loads


def main() -> None:
    """Print a line for each turn and the median; with --json, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--adapters", type=int, default=50)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    directory = resolve_model(asked.model)
    turns = list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        given = {f"a{i}": str(Path(folder, f"a{i}")) for i in range(asked.adapters)}
        for seed, place in enumerate(given.values()):
            write_adapter(Path(place), directory, rank=asked.rank, seed=seed)
        spent(asked, random_prompts(asked, read_spec(directory).vocab_size, 0)[:2], {})  # what a process does but once
        for turn in range(asked.repeats):
            prompts = random_prompts(asked, read_spec(directory).vocab_size, turn)
            turns.append(one_turn(asked, prompts, given, adapters_first=turn % 2 == 0))
            print(", ".join(f"{name} {value:,.4g}" for name, value in turns[-1].items()), flush=True)
    print(f"median of base / adapters: {statistics.median(turn['base / adapters'] for turn in turns):.1%}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(turns, indent=1))


if __name__ == "__main__":
    main()
