"""Whether a process grows while it answers: memory, descriptors and threads over many requests.

    python -m tools.growth --model demo --requests 100000 [--ways generate,session,job]

Each way answers `--requests` small prompts in one process: calls of `LLM.generate`, one session that never ends, and
jobs with a store (`umbel.run`). Prints a table: what the process held after each tenth of them. A process that does not
grow holds as much in the second half as in the first, up to what its allocator keeps. A session keeps columns of all of
its rows, some 600 bytes each, and each load of a tokenizer costs what the words that it saw take (tokenizers 0.23).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType

import umbel
from umbel import LLM, SamplingParams

BATCH = 500
LOOKS = 10
PARAMS = SamplingParams(temperature=0.7, max_tokens=3)


@dataclass(frozen=True)
class Held:
    """What this process holds after some requests: resident memory in MiB, open descriptors, threads."""

    requests: int
    mib: float
    descriptors: int
    threads: int

    @classmethod
    def now(cls, requests: int) -> Held:
        """What it holds behind a collection, with what the C library can give back given back."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files, threads = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
        return cls(requests, pages * 4096 / 2**20, files, threads)


def prompts(begin: int) -> list[str]:
    """So many prompts, none of which was there before; half of them begin alike."""
    return [f"{'Name the number: ' * (i % 2)}{i}, and {i % 7} more" for i in range(begin, begin + BATCH)]


def generate(model: str) -> Iterator[int]:
    """Calls of `LLM.generate`; gives how many requests are done."""
    with LLM(model, kv_tokens=8192, threads=1) as llm:
        for done in count(0, BATCH):
            outputs = llm.generate(prompts(done), PARAMS)
            assert all(output.error is None for output in outputs)
            yield done + BATCH


def session(model: str) -> Iterator[int]:
    """One session: prompts come while the ones before them run."""
    with LLM(model, kv_tokens=8192, threads=1) as llm, llm.session() as live:
        added = done = 0
        while True:
            if added - done < 2 * BATCH:
                live.add(prompts(added), PARAMS)
                added += BATCH
            event = next(live)
            if event.kind == "finished":
                assert event.output is not None and event.output.error is None
                done += 1
                if done % BATCH == 0:
                    yield done


def job(model: str) -> Iterator[int]:
    """Jobs of ten batches each, with stores, which are removed."""
    for done in count(0, 10 * BATCH):
        with tempfile.TemporaryDirectory() as folder:
            given, out = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
            rows = (text for some in range(10) for text in prompts(done + some * BATCH))
            given.write_text("".join(json.dumps({"prompt": text, "max_tokens": 3}) + "\n" for text in rows))
            umbel.run(given, out, model=model, kv_tokens=8192, threads=1, quiet=True)
            assert len(out.read_text().splitlines()) == 10 * BATCH
        yield done + 10 * BATCH


WAYS: Mapping[str, Callable[[str], Iterator[int]]] = MappingProxyType(
    {"generate": generate, "session": session, "job": job}
)


def watched(way: str, model: str, requests: int) -> list[Held]:
    """What the process held after each tenth of `requests` answered in one way."""
    held: list[Held] = []
    for done in WAYS[way](model):
        if done >= requests * (len(held) + 1) / LOOKS:
            held.append(Held.now(done))
        if done >= requests:
            return held
    raise AssertionError("ways do not end by themselves")


def main() -> None:
    """Watch every way that is asked for, and print what was held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--ways", default=",".join(WAYS))
    asked = parser.parse_args()
    for way in asked.ways.split(","):
        print(f"\n{way}\n\n| requests | MiB | descriptors | threads |\n| ---: | ---: | ---: | ---: |")
        for held in watched(way, asked.model, asked.requests):
            print(f"| {held.requests:,} | {held.mib:.1f} | {held.descriptors} | {held.threads} |", flush=True)


if __name__ == "__main__":
    main()
