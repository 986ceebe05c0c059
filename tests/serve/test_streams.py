"""OpenAI's own client over a server that listens: streams joined are the whole answer, and that is `generate`'s."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from umbel.api import LLM
from umbel.engine.tickets import SessionEvent
from umbel.ir.params import SamplingParams
from umbel.serve.figures import Figures
from umbel.serve.mailbox import Mailbox, News
from umbel.serve.pace import Pace
from umbel.serve.run import bound
from umbel.serve.streaming import _parts

PROMPT = [5, 30, 41, 17]
MESSAGES: Any = [{"role": "user", "content": "tell me of the sea"}]
ASKED: dict[str, Any] = {"max_tokens": 9, "temperature": 0.8, "seed": 7, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_completions(sdk: openai.OpenAI, llm: LLM) -> None:
    whole = sdk.completions.create(model="tiny", prompt=PROMPT, n=2, logprobs=2, **ASKED)
    usage: Any = {"include_usage": True}
    parts = list(
        sdk.completions.create(model="tiny", prompt=PROMPT, n=2, logprobs=2, stream=True, stream_options=usage, **ASKED)
    )
    params = SamplingParams(n=2, max_tokens=9, temperature=0.8, seed=7, ignore_eos=True, logprobs=2)
    (expected,) = llm.generate([PROMPT], params)
    assert parts[-1].usage == whole.usage and not parts[-1].choices
    for choice, own in zip(whole.choices, expected.outputs, strict=True):
        mine = [part.choices[0] for part in parts[:-1] if part.choices[0].index == choice.index]
        assert choice.text == own.text == "".join(one.text for one in mine)
        assert [one.finish_reason for one in mine if one.finish_reason] == [choice.finish_reason] == ["length"]
        scored = [one.logprobs for one in mine if one.logprobs is not None]
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        for name in ("tokens", "token_logprobs", "top_logprobs"):
            assert [value for one in scored for value in getattr(one, name)] == getattr(choice.logprobs, name)
        assert own.logprobs is not None
        assert choice.logprobs.token_logprobs == pytest.approx([one.logprob for one in own.logprobs])


def test_chats(sdk: openai.OpenAI, llm: LLM) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": MESSAGES,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        **ASKED,
    }
    whole = sdk.chat.completions.create(**asked)
    parts = list(sdk.chat.completions.create(stream=True, **asked))
    params = SamplingParams(n=2, max_tokens=9, temperature=0.8, seed=7, ignore_eos=True)
    (expected,) = llm.chat([MESSAGES], params)
    for choice, own in zip(whole.choices, expected.outputs, strict=True):
        mine = [part.choices[0] for part in parts if part.choices[0].index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert choice.message.content == own.text == "".join(one.delta.content or "" for one in mine)
        assert choice.logprobs is not None
        scored = [entry for one in mine if one.logprobs is not None for entry in one.logprobs.content or []]
        assert scored == choice.logprobs.content


def test_several_prompts_in_one_stream(sdk: openai.OpenAI, llm: LLM) -> None:
    prompts = [[5, 30], [7, 8, 9], [5, 31]]
    texts = ["", "", ""]
    for part in sdk.completions.create(model="tiny", prompt=prompts, temperature=0, max_tokens=5, stream=True):
        texts[part.choices[0].index] += part.choices[0].text
    expected = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=5))
    assert texts == [output.outputs[0].text for output in expected]


def test_echo_gives_the_prompts_logprobs(sdk: openai.OpenAI) -> None:
    """As lm-eval's local-completions asks for them."""
    asked: dict[str, Any] = {"prompt": [PROMPT, PROMPT[:2]], "max_tokens": 1, "logprobs": 1, "temperature": 0}
    whole = sdk.completions.create(model="tiny", echo=True, seed=1234, **asked)
    for choice, prompt in zip(whole.choices, (PROMPT, PROMPT[:2]), strict=True):
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        assert choice.logprobs.token_logprobs[0] is None and len(choice.logprobs.token_logprobs) == len(prompt) + 1
    streamed = list(sdk.completions.create(model="tiny", echo=True, seed=1234, stream=True, **asked))
    assert sorted((one.choices[0].index, one.choices[0].text) for one in streamed) == [
        (choice.index, choice.text) for choice in whole.choices
    ]


def test_what_is_wrong_with_a_stream_has_a_status(sdk: openai.OpenAI, client: httpx.Client) -> None:
    for more in ({"temperature": -1}, {"prompt": []}, {"prompt": [1] * 10_000}):
        with pytest.raises(openai.BadRequestError):
            sdk.completions.create(**{"model": "tiny", "prompt": "a", "stream": True, **more})  # type: ignore[call-overload]
    for body in ({"stream": "yes"}, {"stream_options": {}}, {"stream": True, "stream_options": 1}):
        assert client.post("/v1/completions", json={"prompt": [1], **body}).status_code == 400


def test_events_are_lines_that_any_client_reads(client: httpx.Client) -> None:
    body = {"prompt": [5], "max_tokens": 2, "temperature": 0, "stream": True, "ignore_eos": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "text_completion" for line in lines[:-1])


def test_what_has_come_goes_out_together() -> None:
    """In one write: tokens of all samples and prompts that are there when the client is served."""

    class Texts:
        def begin(self) -> list[bytes]:
            return []

        def of(self, news: News) -> list[bytes]:
            return [news.text.encode()]

        end = begin

    async def sent() -> list[bytes]:
        box = Mailbox(threading.Lock(), Figures("tiny", Pace()))
        box.expect(2)
        box.tickets = range(2)
        box.put(SessionEvent(0, "tokens", 0, (1,), "a"))
        first = await anext(box)
        for event in ((0, "tokens", 1, (2,), "b"), (1, "tokens", 0, (3,), "c"), (0, "tokens", 0, (4,), "d")):
            box.put(SessionEvent(*event))
        parts = _parts(first, box, Texts())
        return [await anext(parts)]

    assert asyncio.run(sent()) == [b"abcd"]


def test_small_parts_are_not_held_back() -> None:
    """Nagle's algorithm would wait for the client's acknowledgement of the part before, which comes 40 ms late."""

    async def asked() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        place = bound("127.0.0.1", 0)
        async with await asyncio.start_server(answer, sock=place):
            _, writer = await asyncio.open_connection(*place.getsockname())
            try:
                return await found
            finally:
                writer.close()

    assert asyncio.run(asked())
