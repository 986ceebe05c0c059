"""Rows say what their chat template is given; jobs say it for all rows, as part of their fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import write_rows
from umbel.batch.job_options import ReadingOptions
from umbel.batch.keywords import job_options
from umbel.batch.reading import read_options
from umbel.errors import UsageError
from umbel.ir.chat import PLAIN_CHAT, ChatOptions
from umbel.ir.params import SamplingParams
from umbel.jobs.fingerprint import fingerprint
from umbel.jobs.read.records import InputRow, ReadOptions
from umbel.jobs.read.source import Source

USER = {"role": "user", "content": "a"}
TOOL = {"type": "function", "function": {"name": "f"}}
QUIET = {"chat_template_kwargs": {"enable_thinking": False}}


def rows(source: Path, **options: Any) -> list[InputRow]:
    return list(Source(source, ReadOptions(SamplingParams(), **options)).rows())


def options_of(found: list[InputRow]) -> list[ChatOptions | str]:
    """How each row becomes a prompt, or its error."""
    return [row.request.chat if row.request is not None else str(row.error and row.error.code) for row in found]


def test_plain_rows_and_openai_lines(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = [
        {"messages": [USER]},
        {"messages": [USER], "tools": [TOOL], **QUIET},
        {"messages": [USER], "continue_final_message": True},
        {"messages": [USER], "tools": [{}]},
    ]
    wanted = [
        PLAIN_CHAT,
        ChatOptions(tools=[TOOL], variables={"enable_thinking": False}),
        ChatOptions(opens_answer=False, continues=True),
        "invalid_tool",
    ]
    envelope = {"method": "POST", "url": "/v1/chat/completions"}
    lines = [{"custom_id": str(i), **envelope, "body": body} for i, body in enumerate(bodies)]
    assert options_of(rows(write_rows(tmp_path / "plain.jsonl", bodies))) == wanted
    assert options_of(rows(write_rows(tmp_path / "openai.jsonl", lines))) == wanted


def test_a_prompt_is_not_rendered_so_such_fields_are_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a", **QUIET}, {"prompt": "a", "tools": None}])
    assert options_of(rows(source)) == ["invalid_value", PLAIN_CHAT]
    defaults = ChatOptions(variables={"x": 1})  # of the chats among the rows
    assert options_of(rows(source, chat_options=defaults)) == ["invalid_value", PLAIN_CHAT]


def test_where_a_template_makes_the_prompts_the_names_are_columns(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"body": "a", "documents": "own", "tools": 7}])
    defaults = ChatOptions(variables={"enable_thinking": False})
    (found,) = rows(source, template="{body} {documents}", chat=True, chat_options=defaults)
    assert found.request is not None and found.request.chat is defaults
    assert found.request.messages == [{"role": "user", "content": "a own"}]
    assert found.columns == b'"body":"a","documents":"own","tools":7'


def test_a_job_says_it_for_all_rows() -> None:
    def given(variables: str | None) -> ReadOptions:
        return read_options(SamplingParams(), ReadingOptions(chat_template_kwargs=variables), None, None)

    assert given(None).chat_options is PLAIN_CHAT
    assert given('{"enable_thinking": false}').chat_options.variables == {"enable_thinking": False}
    for wrong, named in (("{", "no JSON"), ("[1]", "object of variables"), ('{"messages": []}', "field of its own")):
        with pytest.raises(UsageError, match=f"--chat-template-kwargs .*{named}"):
            given(wrong)
    assert (
        job_options("demo", ["x"], "y", {"chat_template_kwargs": {"a": [1]}}).reading.chat_template_kwargs
        == '{"a": [1]}'
    )


def test_another_variable_is_another_job() -> None:
    plain, quiet = (
        fingerprint({}, ReadOptions(chat_options=options), {}, {}, "1")
        for options in (PLAIN_CHAT, ChatOptions(variables={"enable_thinking": False}))
    )
    assert quiet == plain | {"read.chat_template_kwargs": {"enable_thinking": False}}
