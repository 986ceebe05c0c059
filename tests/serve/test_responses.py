"""Responses: the same answers as chats, with the events that OpenAI's client reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from umbel.api import LLM
from umbel.ir.params import SamplingParams

ASKED: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_output_tokens": 7, "extra_body": {"ignore_eos": True}}
INPUTS: list[tuple[Any, str | None, Any]] = [
    ("tell me", None, [{"role": "user", "content": "tell me"}]),
    ("tell me", "be brief", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me"}]),
    (
        [
            {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
            {"role": "user", "content": "three"},
        ],
        None,
        [{"role": r, "content": c} for r, c in (("user", "one"), ("assistant", "two"), ("user", "three"))],
    ),
]


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("given", "instructions", "messages"), INPUTS)
def test_answers_are_those_of_chats(
    sdk: openai.OpenAI, llm: LLM, given: Any, instructions: str | None, messages: Any
) -> None:
    found = sdk.responses.create(input=given, instructions=instructions, **ASKED)
    (expected,) = llm.chat([messages], SamplingParams(temperature=0, max_tokens=7, ignore_eos=True))
    assert found.output_text == expected.outputs[0].text
    assert found.status == "incomplete" and found.usage is not None and found.usage.output_tokens == 7
    with sdk.responses.stream(input=given, instructions=instructions or openai.omit, **ASKED) as stream:
        events = list(stream)
    final = events[-1].response  # type: ignore[union-attr]
    assert final.output_text == found.output_text
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == found.output_text
    names = [event.type for event in events if not event.type.endswith("delta")]
    assert names == [
        *("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"),
        *("response.output_text.done", "response.content_part.done", "response.output_item.done"),
        "response.incomplete",
    ]


def test_what_is_not_there(client: httpx.Client) -> None:
    for body in (
        {},
        {"input": 5},
        {"input": "a", "previous_response_id": "resp_1"},
        {"input": [{"type": "input_image"}]},
        {"input": "a", "tools": [{"type": "web_search"}]},
        {"input": "a", "background": True},
        {"input": "a", "n": 2},
    ):
        found = client.post("/v1/responses", json=body)
        assert found.status_code == 400 and found.json()["error"]["code"], body
