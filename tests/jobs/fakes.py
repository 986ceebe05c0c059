"""A tokenizer, an engine and jobs made of them, so that job tests need neither a model nor torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.errors import InvalidRequest
from umbel.ir.arrivals import Arrivals
from umbel.ir.chat import Chat
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.request import Completion, Output
from umbel.ir.resumable import OpenSample, Resumable
from umbel.ir.spec import ModelSpec
from umbel.ir.stops import Stops
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.jobs.failpoints import FailHook, no_failpoint
from umbel.jobs.fingerprint import fingerprint
from umbel.jobs.job import Job
from umbel.jobs.job_spec import JobSpec
from umbel.jobs.read.changes import HashedInput, input_identity
from umbel.jobs.read.inputs import InputFile
from umbel.jobs.read.records import ReadOptions
from umbel.plan.planner import make_plan
from umbel.text.bad_words import WordRuns

WIDTH = 512
CONTEXT = 64
SPEC = ModelSpec("llama", WIDTH, 64, 2, 4, 2, 16, 128, CONTEXT, 1e-5, 10_000.0)
CONFIG = EngineConfig("fake", dtype="float32", kv_tokens=65_536, chunk=512, skip=("order", "pack"))


class FakeTokenizer:
    """One token per character, chats joined by role marks; the template knows no role 'function'."""

    notes: tuple[str, ...] = ()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(c) % (WIDTH - 1) for c in text] for text in texts]

    def encode_alone(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encode(texts)

    def encode_chat(self, conversations: Sequence[Chat]) -> list[list[int]]:
        for chat in conversations:
            if any(message["role"] == "function" for message in chat.messages):
                raise InvalidRequest("invalid_value", "the template cannot render role 'function'", "messages")
        return self.encode(
            ["".join(m["role"][0] + _text(m["content"]) for m in chat.messages) for chat in conversations]
        )

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        return ["".join(chr(33 + i % 90) for i in row) for row in rows]

    def check_stops(self, params: SamplingParams) -> None:
        pass

    def check_bad_words(self, words: tuple[str, ...], width: int) -> None:
        WordRuns(self.encode_alone).check(words, width)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        return [bytes([33 + i % 90]) for i in ids]

    def spell(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def _text(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


@dataclass
class FakeEngine:
    """Answers from the prompt, seed and key alone, in an order of its own; counts what it was asked."""

    seen: list[int] = field(default_factory=list)
    planned: list[int] = field(default_factory=list)
    tokens: int = 0
    reverse: bool = True
    first_token: float | None = None
    keeps_unfinished: bool = False
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)

    def plan_for(self, workload: Workload) -> Plan:
        self.planned.append(len(workload))
        return make_plan(workload, SPEC, CONFIG, named("a100"))

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        rows = range(len(workload))
        for row in reversed(rows) if self.reverse else rows:
            self.first_token = self.first_token or time.monotonic()
            self.seen.append(int(workload.keys[row]))
            yield self._answer(row, workload)

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        number = 0
        while (taken := arrivals.take(wait=True)) is not None:
            for output in self.execute(*taken):
                yield number, output
            number += 1

    def _answer(self, row: int, workload: Workload) -> Output:
        prompt, params = workload.prompt(row), workload.params[row]
        most = CONTEXT if params.max_tokens is None else params.max_tokens
        count = min(most, CONTEXT - len(prompt), 5)
        base = int(prompt.sum()) + 7 * int(workload.keys[row]) + (params.seed or 0)
        outputs = tuple(self._completion(i, base, count, params) for i in range(params.n))
        self.tokens += sum(len(c.token_ids) for c in outputs)
        return Output(row, len(prompt), outputs, prompt_logprobs=_scores(prompt.tolist(), params))

    def _completion(self, index: int, base: int, count: int, params: SamplingParams) -> Completion:
        ids = tuple((base + index * 31 + k) % WIDTH for k in range(count))
        logprobs = None
        if params.logprobs is not None:
            top = tuple((k, -1.5 - k) for k in range(params.logprobs))
            logprobs = tuple(TokenLogprobs(t, -0.5, top) for t in ids)
        (text,) = self.tokenizer.decode_batch([list(ids)])
        reason = "length" if count < 5 else "stop"
        return Completion(index, text, ids, reason, None, logprobs)

    def left(self) -> Left:
        return Left()

    def replicas(self) -> tuple[ReplicaTally, ...]:
        return ()

    def stats(self) -> Stats:
        return Stats(computed_prompt_tokens=3 * len(self.seen), output_tokens=self.tokens, rows_done=len(self.seen))


class KeepingEngine(FakeEngine):
    """Has half an answer of its last row kept again and again, which must be the beginning of what it gives."""

    def __init__(self) -> None:
        super().__init__(keeps_unfinished=True, reverse=False)

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        assert stops is not None
        for number, (workload, plan) in enumerate(iter(lambda: arrivals.take(wait=True), None)):
            last, begun = len(workload) - 1, stops.begun(number)
            whole = self._answer(last, workload).outputs[0].token_ids
            assert all(whole[: len(s.token_ids)] == s.token_ids for record in begun.values() for s in record.open)
            half = OpenSample(0, whole[: len(whole) // 2], len(whole))
            record = Resumable((), workload.params[last], 0, 1, (half,))
            for place, output in enumerate(self.execute(workload, plan)):
                if place % 8 == 0 and place < last:
                    stops.keep({(number, last): record})
                yield number, output


def _scores(prompt: list[int], params: SamplingParams) -> tuple[TokenLogprobs | None, ...] | None:
    if params.prompt_logprobs is None:
        return None
    top = tuple((k, -1.5 - k) for k in range(params.prompt_logprobs))
    first = max(params.logprob_start_len, 1)
    return tuple(
        TokenLogprobs(token, -(1 + token % 7) / 4, top) if at >= first else None for at, token in enumerate(prompt)
    )


def make_job(
    source: Path | Sequence[Path],
    output: Path,
    engine: FakeEngine | None = None,
    at: FailHook = no_failpoint,
    *,
    options: ReadOptions | None = None,
    order: str = "input",
    fresh: bool = False,
    version: str = "1",
    **more: Any,
) -> Job:
    """A job over fakes. Several files go by their names without directories."""
    options = options or ReadOptions(width=WIDTH, models=frozenset({"fake"}))
    files = (InputFile.of(source),) if isinstance(source, Path) else tuple(InputFile(p, p.name) for p in source)
    watch = tuple(HashedInput.of(file.path) for file in files)
    parts = input_identity(files, watch)
    identity = fingerprint(parts, options, {"config.json": "0"}, {"dtype": "float32", "seed": 0}, version)
    spec = JobSpec(files, output, options, identity, "fake", WIDTH, CONTEXT, order, fresh, watch=watch, **more)
    return Job(spec, lambda now: FakeTokenizer(), lambda: engine or FakeEngine(), at=at)


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """JSON lines of `rows`; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of an output file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
