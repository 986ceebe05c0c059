"""From an answer to its output line: plain objects here, OpenAI's shapes in `openai_answers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from umbel.ir.choices import Score
from umbel.ir.request import Completion, Output, RowError, TokenLogprobs
from umbel.jobs.read.records import Style
from umbel.jobs.store import Result
from umbel.jobs.write.gathering import ScoredRow
from umbel.jobs.write.openai_answers import OpenAIAnswers, TokenTexts


@dataclass(slots=True)
class Renderer:
    """Renders rows of a job. `job` and `model` name it in OpenAI lines; `token_bytes` gives what tokens add to a text.

    A line depends on its row alone: nothing random, no clock, no counter.
    """

    job: str
    model: str
    token_bytes: Callable[[Sequence[int]], list[bytes]]
    _openai: OpenAIAnswers = field(init=False)

    def __post_init__(self) -> None:
        self._openai = OpenAIAnswers(self.job, self.model, TokenTexts(self.token_bytes))

    def answer(
        self, row: int, custom_id: str | None, style: Style, output: Output, *, many: bool, prompt: Sequence[int] = ()
    ) -> Result:
        """The line of a row that ran; `many` says that it asked for more than one completion, `prompt` are the token
        ids that come before them in an answer that echoes."""
        if output.error is not None:
            return self.failure(row, custom_id, style, output.error)
        produced = output.output_tokens
        if style == Style.PLAIN:
            item = _plain(custom_id, output, produced, many=many)
        else:
            item = self._openai.answer(row, custom_id, style, output, prompt)
        return Result(row, orjson.dumps(item), None, output.prompt_tokens, produced, output.cut)

    def scores(self, row: int, custom_id: str | None, scored: ScoredRow) -> Result:
        """The line of a row whose continuations were scored."""
        errors = [score.error for score in scored.scores] if scored.chosen is None else [scored.chosen.error]
        error = next((one for one in errors if one is not None), None)
        if error is not None:
            return self.failure(row, custom_id, Style.PLAIN, error)
        item: dict[str, Any] = {"custom_id": custom_id}
        if scored.chosen is None:
            item["scores"] = [_score(score) for score in scored.scores]
        else:
            item |= {"choice": scored.chosen.choice, "choice_logprobs": scored.chosen.logprobs}
            item["choice_probabilities"] = scored.chosen.probabilities
        item |= {"usage": {"prompt_tokens": scored.tokens, "completion_tokens": 0}, "error": None}
        return Result(row, orjson.dumps(item), None, scored.tokens, 0, False)

    def failure(self, row: int, custom_id: str | None, style: Style, error: RowError) -> Result:
        """The line of a row that has no answer."""
        if style == Style.PLAIN:
            item: dict[str, Any] = {"custom_id": custom_id, "text": None, "token_ids": None, "finish_reason": None}
            item |= {"usage": None, "error": error.body()}
        else:
            item = self._openai.failure(row, custom_id, error)
        return Result(row, orjson.dumps(item), error.code, 0, 0, False)


def _score(score: Score) -> dict[str, Any]:
    item: dict[str, Any] = {"logprob": score.logprob, "mean": score.mean, "token_ids": score.token_ids}
    return {**item, "token_logprobs": score.token_logprobs}


def _plain(custom_id: str | None, output: Output, produced: int, *, many: bool) -> dict[str, Any]:
    usage = {"prompt_tokens": output.prompt_tokens, "completion_tokens": produced}
    scores: dict[str, Any] = {}
    if output.prompt_logprobs is not None:
        scores["prompt_logprobs"] = [None if one is None else _logprob(one) for one in output.prompt_logprobs]
    if many:
        choices = [{"index": c.index, **_completion(c)} for c in output.outputs]
        return {"custom_id": custom_id, "choices": choices, "usage": usage, **scores, "error": None}
    item = {"custom_id": custom_id, **_completion(output.outputs[0])}
    item["usage"] = usage
    if "logprobs" in item:
        item["logprobs"] = item.pop("logprobs")  # after the short fields
    return {**item, **scores, "error": None}


def _completion(c: Completion) -> dict[str, Any]:
    item: dict[str, Any] = {"text": c.text, "token_ids": c.token_ids, "finish_reason": c.finish_reason}
    if c.logprobs is not None:
        item["logprobs"] = [_logprob(token) for token in c.logprobs]
    return item


def _logprob(token: TokenLogprobs) -> dict[str, Any]:
    top = [{"token_id": id, "logprob": value} for id, value in token.top]
    return {"token_id": token.token_id, "logprob": token.logprob, "top": top}
