"""Answers that are cut into parts while they come have the parts of the whole answer, wherever it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.jobs.read.records import RowHead, Style
from umbel.serve.parts import PartReader
from umbel.text.answers.formats import AnswerReader

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
TEXTS = [
    "plain words, 1 < 2 and a[3] too",
    "<think>\nso it goes\n</think>\n\nThe answer is <b>4</b>.",
    "\n<think>only thoughts",
    f"<think>a</think>I call it. {CALL}",
    CALL,
    "no call [1, 2] at all",
    "",
]


@pytest.mark.parametrize("style", [Style.CHAT, Style.TOOLS])
@pytest.mark.parametrize("reasoning", [None, "qwen3", "deepseek_r1"])
@settings(max_examples=25)
@given(text=st.sampled_from(TEXTS), cuts=st.sets(st.integers(0, 60)))
def test_parts_joined_are_those_of_the_whole(style: Style, reasoning: str | None, text: str, cuts: set[int]) -> None:
    reader, head = AnswerReader("hermes", reasoning), RowHead(0, None, style)
    whole = reader.read(text, may_call=style.may_call)
    parts, found = PartReader(reader, head), {"content": "", "reasoning_content": ""}
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    deltas = [parts.push(text[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    for delta in [*deltas, parts.finish(whole)]:
        for name in found:
            found[name] += delta.get(name, "")
    assert found == {"content": whole.content or "", "reasoning_content": whole.reasoning or ""}


def test_words_come_at_once() -> None:
    """Before their end is known, unless they may be the beginning of something else."""
    parts = PartReader(AnswerReader("hermes", "qwen3"), RowHead(0, None, Style.TOOLS))
    assert parts.push("<thi") == {}
    assert parts.push("nk>so")["reasoning_content"] == "so"
    assert parts.push("</think>") == {}
    assert parts.push("It is")["content"] == "It is"
    assert parts.push(" four <tool") == {"content": " four"}
