"""What clients of a running server feel when a trace of arrivals is replayed on it, over HTTP: one line a run.

Sends `/v1/completions` with token ids that share nothing, as streams, to any server that speaks OpenAI's protocol, at
the times of a slice of a trace (CSV with arrival_s, prompt_tokens, output_tokens, as Azure publishes them). TTFT: from
sending to the first token; TBT: between two tokens of one answer. Goodput: requests a second whose first token came
within --ttft and whose gaps are all within --tbt.

    python bench/replay_http.py URL --model NAME --trace azure2023_conv.csv.gz [--seconds 90] [--speed 0.1]
        [--ttft 5] [--tbt 0.3] [--most 2048] [--name umbel]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from bench.stalls import read

TOKENS = 20_000  # ids are below


@dataclass
class Heard:
    """When a request was sent, and when tokens of its answer came, in seconds of one clock."""

    sent: float
    times: list[float] = field(default_factory=list)

    def met(self, ttft: float, tbt: float) -> bool:
        """Whether it kept both targets."""
        gaps = np.diff(self.times)
        return bool(self.times) and self.times[0] - self.sent <= ttft and float(gaps.max(initial=0.0)) <= tbt


async def ask(http: aiohttp.ClientSession, url: str, model: str, prompt: list[int], answer: int, at: float) -> Heard:
    """Send one request at its time, and note what comes."""
    await asyncio.sleep(max(at - time.perf_counter(), 0.0))
    body = {"model": model, "prompt": prompt, "max_tokens": answer, "ignore_eos": True, "temperature": 0.0}
    body |= {"stream": True, "logprobs": 0}  # so that tokens are told whose text is not whole yet
    heard = Heard(time.perf_counter())
    async with http.post(url + "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {") and any(one["logprobs"] for one in json.loads(line[6:])["choices"]):
                heard.times.append(time.perf_counter())
    return heard


async def replay(asked: argparse.Namespace) -> list[Heard]:
    """Send the requests of the slice, after one that is not counted."""
    at, prompts, answers = read(asked.trace, asked.seconds, asked.speed)
    fits = [i for i, size in enumerate(prompts) if size + answers[i] <= asked.most]
    rng = np.random.default_rng(0)
    timeout, connections = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connections) as http:
        await ask(http, asked.url, asked.model, [5] * 64, 8, 0.0)
        began = time.perf_counter() + 0.5
        calls = []
        for i in fits:
            prompt = rng.integers(10, TOKENS, prompts[i]).tolist()
            calls.append(ask(http, asked.url, asked.model, prompt, answers[i], began + at[i]))
        return list(await asyncio.gather(*calls))


def main() -> None:
    """Print the figures of one run."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("url")
    options.add_argument("--model", required=True)
    options.add_argument("--trace", type=Path, required=True)
    options.add_argument("--seconds", type=float, default=90.0)
    options.add_argument("--speed", type=float, default=0.1)
    options.add_argument("--ttft", type=float, default=5.0)
    options.add_argument("--tbt", type=float, default=0.3)
    options.add_argument("--most", type=int, default=2048, help="tokens of a request, above which it is left out")
    options.add_argument("--name", default="")
    asked = options.parse_args()
    heard = asyncio.run(replay(asked))
    first = np.array([one.times[0] - one.sent for one in heard if one.times])
    gaps = np.concatenate([np.diff(one.times) for one in heard])
    seconds = max(one.times[-1] for one in heard if one.times) - min(one.sent for one in heard)
    good = sum(one.met(asked.ttft, asked.tbt) for one in heard)
    waits = " / ".join(f"{value:.2f}" for value in np.percentile(first, [50, 90, 99]))
    between = " / ".join(f"{1e3 * value:.0f}" for value in [*np.percentile(gaps, [50, 90, 99]), gaps.max()])
    print(
        f"{asked.name or asked.url}: {len(heard)} requests in {seconds:.1f} s, {len(heard) / seconds:.3f}/s; within "
        f"targets {good} ({good / seconds:.3f}/s); TTFT p50/p90/p99 {waits} s; TBT p50/p90/p99/worst {between} ms",
        flush=True,
    )


if __name__ == "__main__":
    main()
