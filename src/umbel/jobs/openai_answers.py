"""OpenAI batch output lines: envelopes, chat completions, text completions and their logprobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from umbel.ir.request import Completion, Output, RowError, TokenLogprobs
from umbel.jobs.rows import Style

CREATED = 0
"""`created` of every body: a clock reading would differ between a resumed and an uninterrupted run."""


@dataclass(slots=True)
class TokenTexts:
    """The text of single tokens, asked for once each."""

    decode: Callable[[Sequence[int]], list[str]]
    _known: dict[int, str] = field(default_factory=dict)

    def of(self, ids: Iterable[int]) -> list[str]:
        """One text per id (a token that holds part of a character reads as U+FFFD)."""
        wanted = list(ids)
        missing = sorted(set(wanted) - self._known.keys())
        if missing:
            self._known.update(zip(missing, self.decode(missing), strict=True))
        return [self._known[id] for id in wanted]


@dataclass(slots=True)
class OpenAIAnswers:
    """Renders lines of job `job` with `model` as the model's name; ids come from the job and the row's custom id."""

    job: str
    model: str
    texts: TokenTexts

    def answer(self, row: int, custom_id: str | None, style: Style, output: Output) -> dict[str, Any]:
        """The line of a row that ran."""
        tag = self._tag(row, custom_id)
        usage = {
            "prompt_tokens": output.prompt_tokens,
            "completion_tokens": output.output_tokens,
            "total_tokens": output.prompt_tokens + output.output_tokens,
        }
        if style == Style.CHAT:
            head = {"id": f"chatcmpl-{tag}", "object": "chat.completion"}
            choices = [self._chat_choice(c) for c in output.outputs]
        else:
            head = {"id": f"cmpl-{tag}", "object": "text_completion"}
            choices = [self._text_choice(c) for c in output.outputs]
        body = {**head, "created": CREATED, "model": self.model, "choices": choices, "usage": usage}
        return _line(tag, custom_id, 200, body, None)

    def failure(self, row: int, custom_id: str | None, error: RowError) -> dict[str, Any]:
        """The line of a row without an answer: the error both where HTTP clients and where batch readers look."""
        brief = {"code": error.code, "message": error.message}
        return _line(self._tag(row, custom_id), custom_id, error.status, {"error": error.body()}, brief)

    def _tag(self, row: int, custom_id: str | None) -> str:
        name = f"row {row}" if custom_id is None else f"id {custom_id}"
        return blake2b(f"{self.job} {name}".encode(), digest_size=12).hexdigest()

    def _chat_choice(self, c: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": c.text, "refusal": None}
        logprobs = None if c.logprobs is None else {"content": self._chat_logprobs(c.logprobs), "refusal": None}
        return {"index": c.index, "message": message, "logprobs": logprobs, "finish_reason": c.finish_reason}

    def _text_choice(self, c: Completion) -> dict[str, Any]:
        logprobs = None if c.logprobs is None else self._text_logprobs(c.logprobs)
        return {"index": c.index, "text": c.text, "logprobs": logprobs, "finish_reason": c.finish_reason}

    def _chat_logprobs(self, tokens: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
        content = []
        for token in tokens:
            chosen = self._entry(token.token_id, token.logprob)
            content.append({**chosen, "top_logprobs": [self._entry(id, value) for id, value in token.top]})
        return content

    def _entry(self, id: int, logprob: float) -> dict[str, Any]:
        (text,) = self.texts.of([id])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def _text_logprobs(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
        texts = self.texts.of(token.token_id for token in tokens)
        offsets, at = [], 0
        for text in texts:
            offsets.append(at)
            at += len(text)
        top = [dict(zip(self.texts.of(id for id, _ in t.top), (v for _, v in t.top), strict=True)) for t in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": offsets,
        }


def _line(tag: str, custom_id: str | None, status: int, body: dict[str, Any], error: object) -> dict[str, Any]:
    response = {"status_code": status, "request_id": f"req_{tag}", "body": body}
    return {"id": f"batch_req_{tag}", "custom_id": custom_id, "response": response, "error": error}
