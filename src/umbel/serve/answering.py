"""What the handlers of one app share: its service, and answers in OpenAI's form as batch jobs write them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest
from umbel.ir.request import Output
from umbel.jobs.write.openai_answers import Issuer, OpenAIAnswers, TokenTexts
from umbel.serve.reading import ServedRow
from umbel.serve.service import Service


@dataclass(frozen=True, slots=True)
class AnswerWriter:
    """Writes the answers of a service; `texts` knows its tokens."""

    service: Service
    texts: TokenTexts

    @classmethod
    def of(cls, service: Service) -> AnswerWriter:
        """Writes the answers of a service."""
        tokenizer = service.llm.intake.model.tokenizer
        return cls(
            service, TokenTexts(lambda ids: [b""] * len(ids) if tokenizer is None else tokenizer.token_bytes(ids))
        )

    def now(self) -> OpenAIAnswers:
        """Writes the answer of a request that comes now."""
        service = self.service
        issuer = Issuer(token_hex(8), service.settings.names[0], int(time.time()), None, service.options.answers)
        return OpenAIAnswers(issuer, self.texts)

    def head(self, row: ServedRow, answers: OpenAIAnswers, id: str, kind: str) -> dict[str, Any]:
        """What every chunk of the answer to a row begins with; `id` is the beginning of its id."""
        issuer = answers.issuer
        made = {"id": f"{id}-{answers.tag(row.head)}", "object": kind, "created": issuer.created}
        return made | {"model": issuer.model, "system_fingerprint": issuer.system}

    def body(self, row: ServedRow, output: RequestOutput, writer: OpenAIAnswers) -> dict[str, Any]:
        """The body of the answer to a row. Raises InvalidRequest where it has none."""
        found = engine_output(output)
        body: dict[str, Any] = writer.answer(row.head, found, output.prompt_token_ids)["response"]["body"]
        return body

    def bodies(self, rows: Sequence[ServedRow], outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        """One body for the answers to all prompts of a request: their choices are numbered through."""
        writer = self.now()
        bodies = [self.body(row, output, writer) for row, output in zip(rows, outputs, strict=True)]
        first = bodies[0]
        if len(bodies) == 1:
            return first
        choices = [choice for body in bodies for choice in body["choices"]]
        usage = {name: sum(body["usage"].get(name, 0) for body in bodies) for name in first["usage"]}
        return first | {"choices": [one | {"index": i} for i, one in enumerate(choices)], "usage": usage}


def engine_output(output: RequestOutput) -> Output:
    """An answer as writers of jobs take it. Raises InvalidRequest where it is an error."""
    if (error := output.error) is not None:
        raise InvalidRequest(error.code, error.message, error.param, error.status)
    size = len(output.prompt_token_ids)
    return Output(0, size, output.outputs, None, output.prompt_logprobs, output.vector)
