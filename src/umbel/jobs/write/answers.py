"""From an answer to its output line: plain objects here, OpenAI's shapes in `openai_answers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from umbel.ir.branches import Branches
from umbel.ir.choices import Score
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.request import Completion, Output, RowError
from umbel.jobs.read.records import RowHead, Style
from umbel.jobs.store import Result
from umbel.jobs.write.gathering import ScoredRow
from umbel.jobs.write.openai_answers import Issuer, OpenAIAnswers, TokenTexts, shown_token
from umbel.jobs.write.pooled_answers import pooled_body


@dataclass(slots=True)
class Renderer:
    """Renders rows of a job. `issuer` names it in OpenAI lines; `token_bytes` gives what tokens add to a text, `labels`
    are the classes of a model with a head for them.

    A line depends on its row alone: nothing random, no clock, no counter.
    """

    issuer: Issuer
    token_bytes: Callable[[Sequence[int]], list[bytes]]
    labels: Sequence[str] = ()
    _texts: TokenTexts = field(init=False)
    _openai: OpenAIAnswers = field(init=False)

    def __post_init__(self) -> None:
        self._texts = TokenTexts(self.token_bytes)
        self._openai = OpenAIAnswers(self.issuer, self._texts)

    def answer(self, head: RowHead, output: Output, *, many: bool, prompt: Sequence[int] = ()) -> Result:
        """The line of a row that ran; `many` says that it asked for more than one completion, `prompt` are the token
        ids that come before them in an answer that echoes."""
        if output.error is not None:
            return self.failure(head, output.error)
        produced = output.output_tokens
        if head.style.is_plain:
            line = plain_line(head, self._plain(head, output, many=many))
        else:
            line = orjson.dumps(self._openai.answer(head, output, prompt))
        return Result(head.row, line, None, output.prompt_tokens, produced, output.cut)

    def skipped(self, head: RowHead, prompt_tokens: int, n: int) -> Result:
        """The line of a row that is left out as it asked for: it ends by length, without a token."""
        empty = tuple(Completion(i, "", (), "length") for i in range(n))
        return self.answer(head, Output(head.row, prompt_tokens, empty), many=n > 1)

    def together(self, head: RowHead, branches: Branches, outputs: Sequence[Output]) -> Result:
        """The line of a row that ran as several: whose continuations were scored, or with several inputs."""
        if branches.inputs is None:
            return self._scores(head, ScoredRow.of(branches, outputs))
        error = next((one.error for one in outputs if one.error is not None), None)
        if error is not None:
            return self.failure(head, error)
        body = pooled_body(head.style, branches.inputs, outputs, self.labels)
        tokens = sum(output.prompt_tokens for output in outputs)
        return Result(head.row, orjson.dumps(self._openai.pooled(head, body)), None, tokens, 0, False)

    def _scores(self, head: RowHead, scored: ScoredRow) -> Result:
        errors = [score.error for score in scored.scores] if scored.chosen is None else [scored.chosen.error]
        error = next((one for one in errors if one is not None), None)
        if error is not None:
            return self.failure(head, error)
        item: dict[str, Any] = {}
        if scored.chosen is None:
            item["scores"] = [_score(score) for score in scored.scores]
        else:
            item |= {"choice": scored.chosen.choice, "choice_logprobs": scored.chosen.logprobs}
            item["choice_probabilities"] = scored.chosen.probabilities
        item |= {"usage": {"prompt_tokens": scored.tokens, "completion_tokens": 0}, "error": None}
        return Result(head.row, plain_line(head, item), None, scored.tokens, 0, False)

    def failure(self, head: RowHead, error: RowError) -> Result:
        """The line of a row that has no answer."""
        if head.style.is_plain:
            item: dict[str, Any] = {"text": None, "token_ids": None, "finish_reason": None, "usage": None}
            line = plain_line(head, item | {"error": error.body()})
        else:
            line = orjson.dumps(self._openai.failure(head, error))
        return Result(head.row, line, error.code, 0, 0, False)

    def _plain(self, head: RowHead, output: Output, *, many: bool) -> dict[str, Any]:
        usage = {"prompt_tokens": output.prompt_tokens, "completion_tokens": output.output_tokens}
        usage |= {"cut_prompt_tokens": head.cut} if head.cut else {}
        scores: dict[str, Any] = {}
        if output.prompt_logprobs is not None:
            prompt = [None if one is None else self._logprob(one, None) for one in output.prompt_logprobs]
            scores["prompt_logprobs"] = prompt
        if many:
            choices = [{"index": c.index, **self._completion(head, c)} for c in output.outputs]
            return {"choices": choices, "usage": usage, **scores, "error": None}
        if output.vector is not None:
            return {**self._vector(output.vector), "usage": usage, "error": None}
        item = self._completion(head, output.outputs[0])
        item["usage"] = usage
        if "logprobs" in item:
            item["logprobs"] = item.pop("logprobs")  # after the short fields
        return {**item, **scores, "error": None}

    def _vector(self, vector: tuple[float, ...]) -> dict[str, Any]:
        """The embedding of a row, or the probabilities of the model's classes and the name of the likeliest."""
        if not self.labels:
            return {"embedding": vector}
        return {"choice": self.labels[vector.index(max(vector))], "probs": vector}

    def _completion(self, head: RowHead, c: Completion) -> dict[str, Any]:
        item: dict[str, Any] = {"text": c.text, "token_ids": c.token_ids, "finish_reason": c.finish_reason}
        if head.style != Style.PLAIN:
            item |= self._parts(head, c)
        if c.logprobs is not None:
            own = self._texts.of_answer(c)
            item["logprobs"] = [self._logprob(token, text) for token, text in zip(c.logprobs, own, strict=True)]
        return item

    def _parts(self, head: RowHead, c: Completion) -> dict[str, Any]:
        """What an answer to a chat is beside its text, which is its content then."""
        read, reader = self._openai.read(head, c), self.issuer.answers
        found: dict[str, Any] = {"text": read.content or ""}
        if reader.reasoning is not None:
            found["reasoning_content"] = read.reasoning
        if reader.calls is not None or head.style.must_call:
            found["tool_calls"] = self._openai.calls(head, c, read.calls)
        if read.calls and c.finish_reason == "stop":
            found["finish_reason"] = "tool_calls"
        return found

    def _logprob(self, token: TokenLogprobs, own: bytes | None) -> dict[str, Any]:
        """The log-probabilities of a token and of the most likely ones, each with its text; `own` is the token's as
        its answer has it, None for the usual one."""
        found = [token.token_id, *(id for id, _ in token.top)]
        texts = dict(zip(found, map(shown_token, self._texts.of(found)), strict=True))
        if own is not None:
            texts[token.token_id] = shown_token(own)
        top = [{"token_id": id, "token": texts[id], "logprob": value} for id, value in token.top]
        return {"token_id": token.token_id, "token": texts[token.token_id], "logprob": token.logprob, "top": top}


def plain_line(head: RowHead, item: dict[str, Any]) -> bytes:
    """A plain row: its id, the columns of the input that come back, its answer."""
    begin = b'{"custom_id":' + orjson.dumps(head.custom_id) + b","
    return b"".join((begin, head.columns, b"," if head.columns else b"", orjson.dumps(item)[1:]))


def _score(score: Score) -> dict[str, Any]:
    item: dict[str, Any] = {"logprob": score.logprob, "mean": score.mean, "token_ids": score.token_ids}
    return {**item, "token_logprobs": score.token_logprobs}
