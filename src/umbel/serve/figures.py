"""What the server counts and times of requests, for `/metrics`; without a word of what they say."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram

from umbel.engine.request_output import RequestOutput
from umbel.serve.pace import Pace

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


class Figures:
    """Counters and histograms of one server, under vLLM's names, so that its dashboards show them. `note` methods may
    be called from any thread."""

    def __init__(self, model: str, pace: Pace):
        self.pace = pace
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model}
        self._finished = self._counter("vllm:request_success", "Prompts that were answered.", ("finished_reason",))
        self._failed = self._counter("umbel:request_failure", "Prompts that got an error.", ("code",))
        self._left = self._counter("umbel:request_abandoned", "Prompts whose clients went away.")
        self._first = self._histogram("vllm:time_to_first_token_seconds", "To the first token of streams.", _SECONDS)
        self._between = self._histogram("vllm:inter_token_latency_seconds", "Between tokens of streams.", _SECONDS)
        self._whole = self._histogram("vllm:e2e_request_latency_seconds", "To the last token.", _SECONDS)
        self._prompt = self._histogram("vllm:request_prompt_tokens", "Tokens of prompts.", _TOKENS)
        self._answer = self._histogram("vllm:request_generation_tokens", "Tokens of answers.", _TOKENS)

    def _counter(self, name: str, help: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, help, ("model_name", *labels), registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, help, ("model_name",), buckets=buckets, registry=self.registry).labels(**self._labels)

    def note_tokens(self, waits: dict[tuple[int, int], float], began: float, place: tuple[int, int]) -> None:
        """Tokens of a stream have come, as Pace has them."""
        before = waits.get(place)
        self.pace.note(waits, began, place)
        (self._first if before is None else self._between).observe(waits[place] - (began if before is None else before))

    def note_answer(self, output: RequestOutput, began: float) -> None:
        """A prompt has finished."""
        if output.error is not None:
            self._failed.labels(**self._labels, code=output.error.code).inc()
            return
        self._whole.observe(time.perf_counter() - began)
        self._prompt.observe(len(output.prompt_token_ids))
        self._answer.observe(sum(len(one.token_ids) for one in output.outputs))
        for one in output.outputs[:1]:
            self._finished.labels(**self._labels, finished_reason=one.finish_reason).inc()

    def note_left(self, count: int) -> None:
        """The client of so many prompts went away, or its request was stopped."""
        self._left.labels(**self._labels).inc(count)
