"""Calls of tools and reasoning: the same in chats, in their streams, and in responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.conftest import listening
from tests.tiny_models import make_model
from umbel.api import LLM

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}<tool_call>{% if add_generation_prompt %}"
    "{{ '<think>\\n' }}{% endif %}"
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "Ulm"]}},
    "required": ["city"],
    "additionalProperties": False,
}
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "sun", "parameters": SCHEMA}}]


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    directory = make_model(tmp_path_factory.mktemp("tools") / "llama", "llama", seed=3)
    config = Path(directory) / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TEMPLATE}))
    with (
        LLM(str(directory), dtype="float32", device="cpu", threads=1) as llm,
        listening(llm) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_calls_that_have_to_be(sdk: openai.OpenAI) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed here")
    asked: Any = {"model": "tiny", "messages": MESSAGES, "tools": TOOLS, "tool_choice": "required", "seed": 1}
    (choice,) = sdk.chat.completions.create(max_tokens=300, **asked).choices
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls and not choice.message.content
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert all(name == "sun" and json.loads(given)["city"] in ("Bonn", "Ulm") for name, given in calls)
    with sdk.chat.completions.stream(max_tokens=300, **asked) as stream:
        (same,) = stream.get_final_completion().choices
    assert same.finish_reason == "tool_calls" and same.message.tool_calls is not None
    assert [(call.function.name, call.function.arguments) for call in same.message.tool_calls] == calls
    flat: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
    asked = {"model": "tiny", "input": "Hi", "tools": flat, "tool_choice": "required", "extra_body": {"seed": 1}}
    found = sdk.responses.create(max_output_tokens=300, **asked)
    assert [(item.name, item.arguments) for item in found.output] == calls  # type: ignore[union-attr]
    with sdk.responses.stream(max_output_tokens=300, **asked) as events:
        final = events.get_final_response()
    assert [(item.name, item.arguments) for item in final.output] == calls  # type: ignore[union-attr]


def test_reasoning_is_apart(sdk: openai.OpenAI) -> None:
    """The template begins it, and the tiny model never ends it."""
    asked: Any = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 6}
    (choice,) = sdk.chat.completions.create(**asked).choices
    reasoning = getattr(choice.message, "reasoning_content", None)
    assert reasoning and not choice.message.content
    parts = [part.choices[0].delta for part in sdk.chat.completions.create(stream=True, **asked)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in parts) == reasoning
    assert not any(delta.content for delta in parts)
    found = sdk.responses.create(model="tiny", input="Hi", temperature=0, max_output_tokens=6)
    assert [item.type for item in found.output] == ["reasoning"]
    assert found.output[0].content[0].text == reasoning  # type: ignore[union-attr, index]
