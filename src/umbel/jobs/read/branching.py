"""Rows that have continuations scored, as rows of the workload: one for each continuation, which share their prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from umbel.errors import InvalidRequest
from umbel.ir.branches import Branches
from umbel.ir.chat import Chat
from umbel.ir.choices import check_choices
from umbel.ir.contain import as_refusal, concerns_row, row_error
from umbel.ir.inputs import Inputs
from umbel.ir.limits import check_chars, check_room, refuse
from umbel.ir.params import SamplingParams
from umbel.ir.request import Request
from umbel.ir.scores import scoring_params
from umbel.ir.truncation import fitted
from umbel.jobs.read.records import InputRow, n_chars_of
from umbel.text.continuations import Continued, PromptText
from umbel.text.pairs import encode_pairs


class BranchEncoder(Protocol):
    """The part of a tokenizer that is used here."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text. Raises InvalidRequest for one that cannot be encoded."""

    def encode_alone(self, texts: Sequence[str]) -> list[list[int]]:
        """The same without the special tokens that begin or end a text."""

    def encode_chat(self, conversations: Sequence[Chat]) -> Sequence[list[int] | InvalidRequest]:
        """Token ids of each chat, or why the model's template cannot render it."""


@dataclass(frozen=True, slots=True)
class BranchReader:
    """Tokenises and checks rows with `branches` for a model of vocabulary `width` and `context` positions; `bos` stays
    where prompts are cut."""

    tokenizer: BranchEncoder
    width: int
    context: int
    bos: int | None = None
    _params: dict[tuple[object, ...], SamplingParams] = field(default_factory=dict)  # by prompt's tokens, adapter ...

    def expand(self, rows: Sequence[InputRow]) -> tuple[list[InputRow], dict[int, Branches], list[InputRow]]:
        """The rows with each that has branches as a row of token ids for each of them, those behind its calibration
        prompt last; the branches by row; and rows at fault."""
        expanded, found, faults = list[InputRow](), dict[int, Branches](), list[InputRow]()
        for row in rows:
            branches = None if row.request is None else row.request.branches
            if row.request is None or branches is None:
                expanded.append(row)
                continue
            try:
                requests = self._requests(row.request, branches)
            except BaseException as error:
                if not concerns_row(error):
                    raise
                faults.append(row._replace(request=None, error=row_error(as_refusal(error, "reading"))))
                continue
            found[row.row] = branches
            expanded.append(row._replace(request=requests[0]))
            expanded += [row._replace(request=request, columns=b"") for request in requests[1:]]
        return expanded, found, faults

    def _requests(self, request: Request, branches: Branches) -> list[Request]:
        """The rows of a row, of token ids that have been checked."""
        if branches.inputs is not None:
            return self._of_inputs(branches.inputs)
        pairs = self._pairs(request, branches)
        return [Request(pair.ids, None, self._asking(pair.n_prompt, request.params)) for pair in pairs]

    def _of_inputs(self, inputs: Inputs) -> list[Request]:
        for one in inputs.prompts:
            check_chars(len(one) if isinstance(one, str) else 0, self.context)
        found = [fitted(ids, inputs.params, self.context, self.bos) for ids in self._ids_of(inputs)]
        for ids in found:
            check_room(len(ids), 0, self.context, 0)
        whole = inputs.params.clone(truncation=None, truncate_prompt_tokens=None)
        return [Request(ids, None, whole) for ids in found]

    def _ids_of(self, inputs: Inputs) -> list[Sequence[int]]:
        """Token ids of each prompt, or of each two that are read as one."""
        texts = [one for one in inputs.prompts if isinstance(one, str)]
        if inputs.is_paired:
            half = inputs.n_rows
            if len(texts) < 2 * half:
                refuse("invalid_type", "text_1", "pairs of texts are read as one: token ids cannot be joined")
            return list(encode_pairs(self.tokenizer.encode, list(zip(texts[:half], texts[half:], strict=True))))
        own = iter(self.tokenizer.encode(texts) if texts else ())
        return [next(own) if isinstance(one, str) else one for one in inputs.prompts]

    def _asking(self, n_prompt: int, params: SamplingParams) -> SamplingParams:
        lora, taken = params.lora, params.techniques
        asking = replace(scoring_params(n_prompt), lora=lora, techniques=taken)
        return self._params.setdefault((n_prompt, lora, taken), asking)

    def _pairs(self, request: Request, branches: Branches) -> list[Continued]:
        _check_params(request.params)
        check_chars(n_chars_of(request), self.context)
        pairs = self._behind(request, branches.continuations)
        for pair in pairs:
            pair.check(self.width, self.context)
        if branches.chooses:
            check_choices(branches.choices, [pair.continuation for pair in pairs])
        if branches.calibration_prompt is not None:
            prior = Request(branches.calibration_prompt)
            pairs += [pair.check(self.width, self.context) for pair in self._behind(prior, branches.continuations)]
        return pairs

    def _behind(self, request: Request, continuations: Sequence[str | tuple[int, ...]]) -> list[Continued]:
        """A prompt with each of its continuations: as one text where both are texts."""
        texts = [one for one in continuations if isinstance(one, str)]
        if isinstance(request.prompt, str):
            behind = iter(PromptText(self.tokenizer.encode, request.prompt).behind(texts) if texts else ())
        else:
            ids = self._ids(request)
            own = self.tokenizer.encode_alone(texts) if texts else []
            behind = iter([Continued([*ids, *one], len(ids)) for one in own])
        given = self._ids(request) if len(texts) < len(continuations) else ()
        return [
            next(behind) if isinstance(one, str) else Continued([*given, *one], len(given)) for one in continuations
        ]

    def _ids(self, request: Request) -> Sequence[int]:
        if request.messages is not None:
            (found,) = self.tokenizer.encode_chat([Chat(request.messages, request.chat)])
            if isinstance(found, InvalidRequest):
                raise found
            return found
        if isinstance(request.prompt, str):
            return self.tokenizer.encode([request.prompt])[0]
        return request.prompt or ()


def _check_params(params: SamplingParams) -> None:
    """Refuse what would change scores and is not done for them. Sampling fields say nothing where nothing is drawn."""
    if params.pooling_params is not None:
        refuse("invalid_value", "pooling_params", "pooling_params: a row gets a vector, or scores of continuations")
    if params.truncation is not None:
        refuse("unsupported_parameter", "truncation", "truncation: a prompt is not cut before its continuations")
    if params.structured_outputs is not None:
        why = "continuations are scored as they are; leave the form of the answer out"
        refuse("unsupported_parameter", "structured_outputs", f"structured_outputs: {why}")
