"""A row's request and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umbel.ir.branches import Branches
from umbel.ir.chat import PLAIN_CHAT, ChatOptions, Message
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams


@dataclass(frozen=True, slots=True)
class Request:
    """The request of one input row, before tokenising; exactly one of `prompt` (text or token ids) and `messages` is
    set; `chat` says how messages become a prompt. With `branches` their scores are wanted instead of an answer.
    `documents`: where documents stand in a text that are computed apart, in characters."""

    prompt: str | Sequence[int] | None = None
    messages: Sequence[Message] | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    branches: Branches | None = None
    chat: ChatOptions = PLAIN_CHAT
    documents: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no answer, in the shape of an OpenAI error."""

    code: str
    message: str
    param: str | None = None
    type: str = "invalid_request_error"
    status: int = 400

    def body(self) -> dict[str, Any]:
        """The OpenAI error object (without the status)."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


@dataclass(frozen=True, slots=True)
class Completion:
    """One sample of a row; `finish_reason` is "stop", "length" or "repetition", `stop_reason` the stop string or id
    that ended it, or "repetition_detected"; `reasoning_content` and `tool_calls` are parts that `LLM.chat` read."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_reason: str | int | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    cumulative_logprob: float | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """The answer to row number `row` of a workload: its completions (`n` of them), or an error.

    `prompt_logprobs` has an entry for each token of the prompt where the row asked for it, None for those without one:
    the first, and those before its `logprob_start_len`. `vector`: what it gets where it wanted one, an embedding or the
    probabilities of classes.
    """

    row: int
    prompt_tokens: int
    outputs: tuple[Completion, ...] = ()
    error: RowError | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    vector: tuple[float, ...] | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens generated in all completions together."""
        return sum(len(c.token_ids) for c in self.outputs)

    @property
    def cut(self) -> bool:
        """Whether its limit ended a completion; not one that was to have no tokens."""
        return any(c.finish_reason == "length" and c.token_ids for c in self.outputs)
