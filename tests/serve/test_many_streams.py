"""A thousand streams at once: none is dropped, each has its own answer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.runner.fake import FakeRunner

TOKENS = 8


async def told(client: httpx.AsyncClient, prompt: list[int]) -> str:
    body = {"prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, "stream": True}
    text = ""
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    return text


async def all_told(url: str, prompts: list[list[int]]) -> list[str]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        return list(await asyncio.gather(*(told(client, prompt) for prompt in prompts)))


@pytest.mark.parametrize(
    "count", [pytest.param(40, marks=pytest.mark.slow), pytest.param(1_000, marks=pytest.mark.nightly)]
)
def test_each_stream_has_its_own_answer(directory: Path, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    prompts = [[5, 6, 7 + i // 250, 7 + i % 250] for i in range(count)]
    try:
        with LLM(str(directory), runner=FakeRunner(n_pages=4_000, page_size=16, vocab_size=500)) as llm:
            params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=0)
            expected = [output.outputs[0].text for output in llm.generate(prompts, params, use_tqdm=False)]
            assert len(set(expected)) > count // 2
            with listening(llm) as url:
                before = len(os.listdir("/proc/self/fd"))
                assert asyncio.run(all_told(url, prompts)) == expected
                assert httpx.get(url + "/health").status_code == 200
                while len(os.listdir("/proc/self/fd")) > before + 5:  # until its sockets are closed
                    httpx.get(url + "/health")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
