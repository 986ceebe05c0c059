"""From the fields of a request body (OpenAI's and vLLM's names) to sampling parameters: one validator for all inputs.

Order matters: a field is first checked against its range (`invalid_value`, `invalid_type`), then refused as
`unsupported_parameter` when it asks for something the engine does not do. A field that asks for nothing (null, or the
neutral value) passes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from umbel.ir.chat import CHAT_FIELDS
from umbel.ir.limits import MAX_LOGPROBS, check_bool, check_int, refuse, shown
from umbel.ir.neutral import CHECKS, REFUSED, unsupported
from umbel.ir.params import SamplingParams
from umbel.ir.structured import FORM_FIELDS, structured_in

SAMPLING_FIELDS = frozenset(f.name for f in fields(SamplingParams))
_HARMLESS = (
    "model user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention priority "
    "request_id parallel_tool_calls stream_options prediction return_token_ids"
)
HARMLESS_FIELDS = frozenset(_HARMLESS.split())
"""Fields that cannot change an answer: read by other services, passed over here without a warning."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of body spells things.

    `name`: for messages.
    `own`: the fields that are read elsewhere.
    `chat_logprobs`: whether `logprobs` is OpenAI chat's true/false with a separate `top_logprobs` (None: either
        spelling).
    `max_tokens`: the value for a body that sets none where the defaults set none either.
    `echoes`: whether it may have its prompt in its answer.
    """

    name: str
    own: frozenset[str]
    chat_logprobs: bool | None
    max_tokens: int | None = None
    echoes: bool = False


CHAT = Dialect("chat", frozenset({"messages", "tool_choice"}) | CHAT_FIELDS, True)
COMPLETION = Dialect("completion", frozenset({"prompt"}), False, max_tokens=16, echoes=True)  # as OpenAI and vLLM
_PLAIN = frozenset({"prompt", "messages", "custom_id", "continuations", "choices", "calibration_prompt"})
PLAIN = Dialect("plain", _PLAIN | {"tool_choice"} | CHAT_FIELDS, None)


def params_from_body(
    body: Mapping[str, Any],
    dialect: Dialect,
    defaults: SamplingParams,
    width: int | None = None,
) -> SamplingParams:
    """Sampling parameters of one body: its own fields, else `defaults`; null means the default.

    `width` is the model's vocabulary width, for token ids. Unknown fields are left to `unknown_fields`. Raises
    umbel.errors.InvalidRequest.
    """
    given = {name: body[name] for name in SAMPLING_FIELDS & body.keys() if body[name] is not None}
    given.pop("logprobs", None)
    echo = _echo(body, dialect)
    if (k := _logprobs(body, dialect)) is not None:
        given |= {"logprobs": k, "prompt_logprobs": k} if echo else {"logprobs": k}
    if (limit := _max_tokens(body)) is not None:
        given["max_tokens"] = limit
    elif defaults.max_tokens is None and dialect.max_tokens is not None:
        given["max_tokens"] = dialect.max_tokens
    if isinstance(given.get("stop"), list):
        given["stop"] = tuple(given["stop"])
    if any(body.get(name) is not None for name in FORM_FIELDS):
        given["structured_outputs"] = structured_in(body)
    params = replace(defaults, **given)
    if width is not None and params.names_tokens:
        params.check_ids(width)
    for name in (CHECKS.keys() & body.keys()) - dialect.own:
        if body[name] is not None:
            CHECKS[name](name, body[name], params.n, width)
    return params


def unknown_fields(body: Mapping[str, Any], dialect: Dialect) -> list[str]:
    """Names in a body that nothing reads."""
    return [name for name in body if name not in KNOWN_FIELDS and name not in dialect.own]


def refuse_unknown(names: list[str], dialect: Dialect) -> None:
    """Raise `unknown_parameter` for the first of `names`, with the nearest name that exists."""
    if names:
        known = sorted((KNOWN_FIELDS - HARMLESS_FIELDS) | dialect.own)
        close = difflib.get_close_matches(names[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        refuse("unknown_parameter", names[0], f"unknown field {shown(names[0])}{hint}")


def _logprobs(body: Mapping[str, Any], dialect: Dialect) -> int | None:
    """How many top logprobs a body asks for, None for no logprobs at all."""
    asked, top = body.get("logprobs"), body.get("top_logprobs")
    if top is not None:
        check_int("top_logprobs", top, 0, MAX_LOGPROBS)
    if dialect.chat_logprobs and asked is not None:
        check_bool("logprobs", asked)
    if dialect.chat_logprobs is False and asked is not None:
        return check_int("logprobs", asked, 0, MAX_LOGPROBS)
    if asked is None or asked is False:
        if top:
            refuse("invalid_value", "top_logprobs", f"top_logprobs={top}: needs logprobs=true")
        return None
    return (top or 0) if asked is True else check_int("logprobs", asked, 0, MAX_LOGPROBS)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    """The limit of a body. `max_completion_tokens` is the newer name of `max_tokens`; both may be given when they
    agree."""
    new, old = body.get("max_completion_tokens"), body.get("max_tokens")
    least = 0 if body.get("prompt_logprobs") is not None or body.get("echo") else 1
    for name, value in (("max_completion_tokens", new), ("max_tokens", old)):
        if value is not None:
            check_int(name, value, least, 2**31 - 1)
    if new is not None and old is not None and new != old:
        refuse("invalid_value", "max_completion_tokens", f"max_completion_tokens={new} but max_tokens={old}: give one")
    return new if new is not None else old


def _echo(body: Mapping[str, Any], dialect: Dialect) -> bool:
    """Whether the answer is to begin with the prompt."""
    asked = body.get("echo")
    if asked and check_bool("echo", asked) and not dialect.echoes:
        unsupported("echo", asked, "only /v1/completions has it; prompt_logprobs gives the same numbers")
    return bool(asked)


_SPELT = frozenset({"max_completion_tokens", "top_logprobs", "echo"}) | FORM_FIELDS
KNOWN_FIELDS = SAMPLING_FIELDS | HARMLESS_FIELDS | CHECKS.keys() | _SPELT
EFFECTIVE_FIELDS = KNOWN_FIELDS - HARMLESS_FIELDS
_OTHER_COLUMNS = frozenset({"max_completion_tokens", "top_logprobs", "length_penalty", "best_of"})
SAMPLING_COLUMNS = SAMPLING_FIELDS | FORM_FIELDS | _OTHER_COLUMNS
"""Columns that are read beside those of a prompt template; the other fields' names are common names of data."""
OFTEN_MEANT = EFFECTIVE_FIELDS - REFUSED
"""Fields that a name that nothing reads may be a slip for."""
