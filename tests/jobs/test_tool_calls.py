"""Chats with tools: what their rows ask of the answer, and what answers become in OpenAI's lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.jobs.fakes import FakeTokenizer
from umbel.ir.request import Completion, Output
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, RowHead, Style
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.openai_answers import Issuer
from umbel.text.answers.formats import AnswerReader

CITY = {"type": "object", "properties": {"city": {"enum": ["Bonn", "Ulm"]}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "sun", "parameters": CITY}},
    {"type": "function", "function": {"name": "rain"}},
]
NAMED = {"type": "function", "function": {"name": "sun"}}
CALL = '<tool_call>{"name": "sun", "arguments": {"city": "Bonn"}}</tool_call>'


def row_of(format: str | None = "hermes", **body: Any) -> InputRow:
    parser = RowParser(ReadOptions(answers=AnswerReader(format)), ReadNotes(), "/v1/chat/completions")
    inner = {"messages": [{"role": "user", "content": "Hi"}], **body}
    return parser.parse(0, 1, {"custom_id": "a", "method": "POST", "url": parser.endpoint, "body": inner})


@pytest.mark.parametrize(
    ("format", "body", "style"),
    [
        ("hermes", {"tools": TOOLS}, Style.TOOLS),
        ("hermes", {"tools": TOOLS, "tool_choice": "auto"}, Style.TOOLS),
        ("hermes", {"tools": TOOLS, "tool_choice": "none"}, Style.CHAT),
        ("hermes", {}, Style.CHAT),
        (None, {"tools": TOOLS}, Style.CHAT),
        (None, {"tools": TOOLS, "tool_choice": "required"}, Style.CALLS),
        ("hermes", {"tools": TOOLS, "tool_choice": NAMED}, Style.CALLS),
    ],
)
def test_rows_say_whether_their_answers_call(format: str | None, body: dict[str, Any], style: Style) -> None:
    row = row_of(format, **body)
    assert row.error is None and row.style == style and row.request is not None
    assert (row.request.params.structured_outputs is not None) == (style == Style.CALLS)


def test_special_tokens_show_where_calls_are_written_with_them() -> None:
    shown = [row_of(format, tools=TOOLS).request for format in ("mistral", "hermes")]
    assert [one and one.params.skip_special_tokens for one in shown] == [False, True]


def schema_of(**body: Any) -> dict[str, Any]:
    request = row_of(tools=TOOLS, **body).request
    assert request is not None and request.params.structured_outputs is not None
    found: dict[str, Any] = json.loads(request.params.structured_outputs.json or "")
    return found


def test_what_has_to_be_called_is_held_to_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    valid = lambda calls, **body: jsonschema.Draft202012Validator(schema_of(**body)).is_valid(calls)  # noqa: E731
    sun, rain = {"name": "sun", "parameters": {"city": "Ulm"}}, {"name": "rain", "parameters": {}}
    assert valid([sun, rain], tool_choice="required") and not valid([], tool_choice="required")
    assert not valid([sun, rain], tool_choice="required", parallel_tool_calls=False)
    assert valid([sun], tool_choice=NAMED) and not valid([sun, sun], tool_choice=NAMED)
    assert not valid([rain], tool_choice=NAMED)
    assert not valid([{"name": "sun", "parameters": {"city": "Rome"}}], tool_choice="required")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "always"}, "invalid_value", "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "invalid_value",
            "tool_choice",
        ),
        ({"tools": TOOLS, "tool_choice": "required", "guided_regex": "a"}, "invalid_value", "tool_choice"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
                "tool_choice": "required",
            },
            "invalid_grammar",
            "tools",
        ),
    ],
)
def test_choices_that_cannot_be_made(body: dict[str, Any], code: str, param: str) -> None:
    error = row_of(**body).error
    assert error is not None and (error.code, error.param) == (code, param)


def test_plain_rows_and_completions_have_no_choice() -> None:
    plain = RowParser(ReadOptions(), ReadNotes()).parse(0, 1, {"prompt": "x", "tool_choice": "required"})
    assert plain.error is not None and plain.error.code == "unsupported_parameter"


def choice_of(text: str, style: Style, reader: AnswerReader, finish: str = "stop") -> dict[str, Any]:
    renderer = Renderer(Issuer("job", "m", answers=reader), FakeTokenizer().token_bytes)
    output = Output(0, 3, (Completion(0, text, (1, 2), finish),))
    line = json.loads(renderer.answer(RowHead(0, "a", style), output, many=False).line)
    found: dict[str, Any] = line["response"]["body"]["choices"][0]
    return found


def test_calls_have_openai_s_form() -> None:
    reader = AnswerReader("hermes", "qwen3")
    choice = choice_of(f"<think>hm</think>Look.{CALL}", Style.TOOLS, reader)
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == ("Look.", "hm", "hm")
    (call,) = message["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"] == {"name": "sun", "arguments": '{"city": "Bonn"}'}
    assert choice_of(f"<think>hm</think>Look.{CALL}", Style.TOOLS, reader) == choice


def test_what_is_no_call_stays_content() -> None:
    reader = AnswerReader("hermes")
    for text, style, finish in (
        (CALL, Style.CHAT, "stop"),
        ("<tool_call>{", Style.TOOLS, "stop"),
        ('[{"name": "sun", "para', Style.CALLS, "length"),
    ):
        choice = choice_of(text, style, reader, finish)
        assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
        assert choice["finish_reason"] == finish


def test_an_answer_that_had_to_call_is_its_calls() -> None:
    choice = choice_of('[{"name":"sun","parameters":{"city":"Ulm"}}]', Style.CALLS, AnswerReader())
    assert choice["message"]["content"] is None and choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "sun", "arguments": '{"city": "Ulm"}'}
