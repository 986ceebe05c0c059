"""Parts of answers to `LLM.chat`: tool calls and reasoning as jobs write them, and calls that have to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.engine.chat_answers import ChatAnswers
from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "sun",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Bonn", "Ulm"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}<tool_call>{% if add_generation_prompt %}"
    "{{ '<think>\\n' }}{% endif %}"
)
CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    directory = make_model(tmp_path_factory.mktemp("chat") / "llama", "llama", seed=3)
    config = Path(directory) / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TEMPLATE}))
    return LLM(str(directory), dtype="float32", device="cpu", threads=1)


def output_of(text: str) -> RequestOutput:
    return RequestOutput("7", None, [1], (Completion(0, text, (5, 6), "stop"),))


def test_answers_are_read_by_the_template_s_formats() -> None:
    reading = ChatAnswers(TOOLS, None, "auto", "auto", lambda: TEMPLATE)
    (one,) = reading.read(
        output_of('hm</think>So.<tool_call>{"name": "sun", "arguments": {"a": 1}}</tool_call>')
    ).outputs
    assert (one.text, one.reasoning_content, one.finish_reason) == ("So.", "hm", "tool_calls")
    function = {"name": "sun", "arguments": '{"a": 1}'}
    assert one.tool_calls == ({"id": "call_7_0_0", "type": "function", "function": function},)


def test_without_a_parser_answers_are_texts(llm: LLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=5)
    (plain,) = llm.chat(CHAT, params, tools=TOOLS)
    (read,) = llm.chat(CHAT, params, tools=TOOLS, reasoning_parser="auto")
    assert plain.outputs[0].reasoning_content is None and plain.outputs[0].tool_calls == ()
    assert read.outputs[0].token_ids == plain.outputs[0].token_ids
    assert (read.outputs[0].text, read.outputs[0].reasoning_content) == ("", plain.outputs[0].text.lstrip())


def test_calls_that_have_to_be_are_by_the_tools_schemas(llm: LLM) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed here")
    named = {"type": "function", "function": {"name": "sun"}}
    for choice in ("required", named):
        (output,) = llm.chat(CHAT, {"seed": 1, "max_tokens": 300}, tools=TOOLS, tool_choice=choice)
        one = output.outputs[0]
        assert one.finish_reason == "tool_calls" and one.text == ""
        for call in one.tool_calls:
            assert call["function"]["name"] == "sun"
            assert json.loads(call["function"]["arguments"])["city"] in ("Bonn", "Ulm")


def test_what_is_not_known_is_refused(llm: LLM) -> None:
    with pytest.raises(UsageError, match="tool_call_parser='hermes2'"):
        llm.chat(CHAT, tool_call_parser="hermes2")
    with pytest.raises(InvalidRequest, match="no such tool"):
        llm.chat(CHAT, tool_choice="required")
