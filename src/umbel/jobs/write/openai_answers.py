"""OpenAI batch output lines: envelopes, chat completions, text completions and their logprobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.request import Completion, Output, RowError
from umbel.jobs.fingerprint import job_key, system_fingerprint
from umbel.jobs.read.records import RowHead, Style
from umbel.jobs.write.pooled_answers import IDS
from umbel.text.answers.base import ToolCall
from umbel.text.answers.formats import WHOLE, Answer, AnswerReader

UNREACHED: Mapping[str, str] = MappingProxyType({"budget_exceeded": "batch_expired", "cancelled": "batch_cancelled"})
"""Codes of rows that were not reached, and what OpenAI calls them."""
_BROKEN = re.compile("(?:\ufffd)+".encode())


@dataclass(slots=True)
class TokenTexts:
    """The bytes of single tokens, looked up once each."""

    token_bytes: Callable[[Sequence[int]], list[bytes]]
    _known: dict[int, bytes] = field(default_factory=dict)

    def of(self, ids: Iterable[int]) -> list[bytes]:
        """The bytes that each id adds to a text."""
        wanted = list(ids)
        missing = sorted(set(wanted) - self._known.keys())
        if missing:
            self._known.update(zip(missing, self.token_bytes(missing), strict=True))
        return [self._known[id] for id in wanted]

    def of_answer(self, c: Completion) -> list[bytes]:
        """The bytes that each token of an answer adds to it: the first token has no blank where the text has none
        there."""
        found = self.of(c.token_ids)
        if found and not c.text.encode().startswith(found[0]):
            bare = found[0].lstrip(b" ")
            if bare and c.text.encode().startswith(bare):
                found[0] = bare
        return found


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt as the beginning of answers: its `text`, and its `columns` of log-probabilities."""

    text: str
    columns: dict[str, list[Any]]

    def before(self, logprobs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The prompt's columns in front of those of an answer."""
        moved = {**logprobs, "text_offset": [at + len(self.text) for at in logprobs["text_offset"]]}
        return {name: [*self.columns[name], *column] for name, column in moved.items()}


@dataclass(frozen=True, slots=True)
class Issuer:
    """What answers of a job have in common: `job` is its key, from which ids are made, `model` the model's name,
    `created` the second in which the job was first started, `system` stands for the model and its settings, `answers`
    says how tool calls and reasoning are read."""

    job: str
    model: str
    created: int = 0
    system: str | None = None
    answers: AnswerReader = WHOLE

    @classmethod
    def of(cls, identity: Mapping[str, Any], model: str, began: datetime, answers: AnswerReader) -> Issuer:
        """What answers of the job with this fingerprint have in common."""
        return cls(job_key(identity), model, int(began.timestamp()), system_fingerprint(identity), answers)


@dataclass(slots=True)
class OpenAIAnswers:
    """Renders lines of a job; ids come from the job and the row's custom id."""

    issuer: Issuer
    texts: TokenTexts

    def answer(self, row: RowHead, output: Output, prompt: Sequence[int] = ()) -> dict[str, Any]:
        """The line of a row that ran; `prompt`: the ids of the prompt for answers that begin with it."""
        tag, style, issuer = self.tag(row), row.style, self.issuer
        usage = {
            "prompt_tokens": output.prompt_tokens,
            "completion_tokens": output.output_tokens,
            "total_tokens": output.prompt_tokens + output.output_tokens,
        }
        if row.cut:
            usage["cut_prompt_tokens"] = row.cut
        if style in (Style.CHAT, Style.TOOLS, Style.CALLS):
            head = {"id": f"chatcmpl-{tag}", "object": "chat.completion"}
            choices = [self._chat_choice(c, row) for c in output.outputs]
        else:
            head = {"id": f"cmpl-{tag}", "object": "text_completion"}
            echoed = self._echo(output, prompt) if style == Style.ECHO else None
            choices = [self._text_choice(c, echoed) for c in output.outputs]
        body = {**head, "created": issuer.created, "model": issuer.model, "choices": choices, "usage": usage}
        body["system_fingerprint"] = issuer.system
        if output.prompt_logprobs is not None and style != Style.ECHO:
            body["prompt_logprobs"] = [self._prompt_entry(one) for one in output.prompt_logprobs]
        return _line(tag, row.custom_id, 200, body)

    def pooled(self, row: RowHead, body: dict[str, Any]) -> dict[str, Any]:
        """The line of a row that wanted vectors, with what its body has beside the names that all have."""
        tag, issuer = self.tag(row), self.issuer
        head = {"id": f"{IDS[row.style]}-{tag}", "created": issuer.created, "model": issuer.model}
        return _line(tag, row.custom_id, 200, {**head, **body, "system_fingerprint": issuer.system})

    def failure(self, row: RowHead, error: RowError) -> dict[str, Any]:
        """The line of a row without an answer. The error is that of a response, or one of UNREACHED beside none where
        the row was not reached, as OpenAI writes them."""
        tag = self.tag(row)
        if error.code in UNREACHED:
            reason = {"code": UNREACHED[error.code], "message": error.message}
            return {"id": f"batch_req_{tag}", "custom_id": row.custom_id, "response": None, "error": reason}
        return _line(tag, row.custom_id, error.status, {"error": error.body()})

    def tag(self, row: RowHead) -> str:
        """What the ids of a row's answer have in common."""
        name = f"row {row.row}" if row.custom_id is None else f"id {row.custom_id}"
        return blake2b(f"{self.issuer.job} {name}".encode(), digest_size=12).hexdigest()

    def read(self, row: RowHead, c: Completion) -> Answer:
        """The parts of an answer."""
        style = row.style
        may_call, must_call = style.may_call, style.must_call
        return self.issuer.answers.read(c.text, may_call=may_call, must_call=must_call, types=row.types)

    def calls(self, row: RowHead, c: Completion, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """Calls of an answer as OpenAI has them."""
        return [call.as_openai(f"call_{self.tag(row)}_{c.index}_{i}") for i, call in enumerate(calls)]

    def _chat_choice(self, c: Completion, row: RowHead) -> dict[str, Any]:
        read = self.read(row, c)
        message: dict[str, Any] = {"role": "assistant", "content": read.content, "refusal": None}
        if read.reasoning is not None:
            message |= {"reasoning_content": read.reasoning, "reasoning": read.reasoning}
        reason = c.finish_reason
        if read.calls:
            message["tool_calls"] = self.calls(row, c, read.calls)
            reason = "tool_calls" if reason == "stop" else reason
        logprobs = None if c.logprobs is None else {"content": self.chat_logprobs(c), "refusal": None}
        return {"index": c.index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def _text_choice(self, c: Completion, echoed: Echo | None) -> dict[str, Any]:
        logprobs = None if c.logprobs is None else self.text_logprobs(c)
        text = c.text
        if echoed is not None:
            text = echoed.text + text
            logprobs = None if logprobs is None else echoed.before(logprobs)
        return {"index": c.index, "text": text, "logprobs": logprobs, "finish_reason": c.finish_reason}

    def _echo(self, output: Output, prompt: Sequence[int]) -> Echo:
        """The prompt of an answer that begins with it, as its tokens are texts."""
        pieces, scores = self.texts.of(prompt), output.prompt_logprobs or ()
        text, texts = b"".join(pieces).decode(errors="replace"), [shown_token(piece) for piece in pieces]
        columns = {
            "tokens": texts,
            "token_logprobs": [None if one is None else one.logprob for one in scores],
            "top_logprobs": [
                None if one is None else self._top(one, own) for one, own in zip(scores, texts, strict=False)
            ],
            "text_offset": text_offsets(text, pieces),
        }
        return Echo(text, columns)

    def _prompt_entry(self, score: TokenLogprobs | None) -> dict[str, Any] | None:
        """The log-probabilities of a prompt's token and of the most likely ones by id, as vLLM writes them."""
        if score is None:
            return None
        found = {score.token_id: score.logprob, **dict(score.top)}
        texts = zip(found.items(), self.texts.of(found), strict=True)
        return {str(id): {"logprob": value, "decoded_token": shown_token(own)} for (id, value), own in texts}

    def chat_logprobs(self, c: Completion) -> list[dict[str, Any]]:
        """The log-probabilities of an answer's tokens as chats have them."""
        content = []
        for token, own in zip(c.logprobs or (), self.texts.of_answer(c), strict=True):
            others = self.texts.of(id for id, _ in token.top)
            top = [
                _entry(own if id == token.token_id else other, value)
                for (id, value), other in zip(token.top, others, strict=True)
            ]
            content.append({**_entry(own, token.logprob), "top_logprobs": top})
        return content

    def text_logprobs(self, c: Completion) -> dict[str, Any]:
        """The same as text completions have them."""
        tokens, found = c.logprobs or (), self.texts.of_answer(c)
        texts = [shown_token(own) for own in found]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._top(token, text) for token, text in zip(tokens, texts, strict=True)],
            "text_offset": text_offsets(c.text, found),
        }

    def _top(self, token: TokenLogprobs, text: str) -> dict[str, float]:
        """The most likely tokens and the chosen one by text; a token whose text is already used appears by its id."""
        top = {text: token.logprob}
        others = [(id, value) for id, value in token.top if id != token.token_id]
        for (id, value), own in zip(others, self.texts.of(id for id, _ in others), strict=True):
            key = shown_token(own)
            top[f"token_id:{id}" if key in top else key] = value
        return dict(sorted(top.items(), key=lambda item: -item[1]))


def text_offsets(text: str, pieces: Sequence[bytes]) -> list[int]:
    """Where in an answer each of its tokens begins, in characters; a token without visible text begins where the next
    does.

    A token that begins inside a character counts as beginning where the character does.
    """
    data, at, n_chars, offsets = text.encode(), 0, 0, []
    for piece in pieces:
        broken = _BROKEN.match(data, at)
        if broken is not None and not data.startswith(piece, at) and data.startswith(piece, broken.end()):
            at, n_chars = broken.end(), n_chars + len(broken[0]) // 3  # bytes before it were no whole character
        inside = at < len(data) and data[at] & 0xC0 == 0x80
        offsets.append(n_chars - inside)
        if data.startswith(piece, at):
            at += len(piece)
            n_chars += sum(byte & 0xC0 != 0x80 for byte in piece)
    return offsets


def _entry(own: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown_token(own), "logprob": logprob, "bytes": list(own)}


def shown_token(own: bytes) -> str:
    """A token as text; a part of a character appears by its bytes, as OpenAI writes it."""
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)


def _line(tag: str, custom_id: str | None, status: int, body: dict[str, Any]) -> dict[str, Any]:
    response = {"status_code": status, "request_id": f"req_{tag}", "body": body}
    return {"id": f"batch_req_{tag}", "custom_id": custom_id, "response": response, "error": None}
