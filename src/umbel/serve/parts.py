"""The answer to a chat cut into reasoning, content and tool calls while it comes, as it is when it is whole."""

from __future__ import annotations

import re

from umbel.jobs.read.records import RowHead
from umbel.text.answers.formats import Answer, AnswerReader

_MARK = re.compile(r"[<\[][^>\]\s]*$")  # what may be the beginning of a mark, such as <think>
_CALL = re.compile(r"\s*(?:[<\[{`]|functools|$)")  # where a tool call may begin: any of them begins so
MARK_CHARS = 48  # the longest mark has fewer


class PartReader:
    """Cuts the text of one answer. What could still become another part with the next tokens is held back."""

    def __init__(self, reader: AnswerReader, head: RowHead):
        self._reader, self._head = reader, head
        self._text = ""
        self._n_reasoning = self._n_content = 0  # characters that are out

    def push(self, text: str) -> dict[str, str]:
        """What more text adds to the parts, by their names in deltas."""
        self._text += text
        if self._head.style.must_call:
            return {}
        if self._reader.reasoning is None and not self._head.style.may_call:
            self._n_content = len(self._text)
            return {"content": text} if text else {}
        read = self._reader.read(_certain(self._text))
        content = read.content or ""
        if not content.strip():
            content = ""  # reasoning may come behind blanks
        elif self._head.style.may_call and (call := _CALL.search(content)) is not None:
            content = content[: call.start()]
        return self._added(read.reasoning, content)

    def finish(self, answer: Answer) -> dict[str, str]:
        """What the whole answer has besides."""
        return self._added(answer.reasoning, answer.content or "")

    def _added(self, reasoning: str | None, content: str) -> dict[str, str]:
        found = {}
        if reasoning is not None and len(reasoning) > self._n_reasoning:
            more, self._n_reasoning = reasoning[self._n_reasoning :], len(reasoning)
            found |= {"reasoning_content": more, "reasoning": more}
        if len(content) > self._n_content:
            found["content"], self._n_content = content[self._n_content :], len(content)
        return found


def _certain(text: str) -> str:
    """A text without the beginning of a mark at its end."""
    begin = max(len(text) - MARK_CHARS, 0)
    mark = _MARK.search(text, begin)
    return text if mark is None else text[: mark.start()]
