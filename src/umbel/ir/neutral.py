"""Fields that other engines know and this one does not: each is taken with the value that asks for nothing, and refused
by name with any other. One table for JSON rows, sampling parameters and calls from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import wraps
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from umbel.errors import nearest
from umbel.ir.chat import check_tools
from umbel.ir.limits import (
    MAX_INT,
    MAX_N,
    check_int,
    check_number,
    refuse,
    shown,
)

T = TypeVar("T")
Check = Callable[[str, Any, int, int | None], None]


def unsupported(name: str, value: object, why: str = "not supported by this version") -> NoReturn:
    """Raise InvalidRequest about a field that asks for what the engine does not do."""
    refuse("unsupported_parameter", name, f"{name}={shown(value)}: {why}; remove the field")


def _only(*neutral: object) -> Check:
    """A check that accepts a field only with a value that asks for nothing."""

    def check(name: str, value: Any, n: int, width: int | None) -> None:
        if not any(type(value) is type(v) and value == v for v in neutral):
            unsupported(name, value)

    return check


def _number(low: float, high: float, neutral: float) -> Check:
    def check(name: str, value: Any, n: int, width: int | None) -> None:
        if check_number(name, value, low, high) != neutral:
            unsupported(name, value)

    return check


def _best_of(name: str, value: Any, n: int, width: int | None) -> None:
    check_int(name, value, 1, MAX_N)
    if value < n:
        refuse("invalid_value", name, f"best_of={value}: must be at least n={n}")
    if value > n:
        unsupported(name, value, f"choosing the best of more samples than n={n} is not supported")


def _tools(name: str, value: Any, n: int, width: int | None) -> None:
    if check_tools(value):
        unsupported(name, value)


def _by_form(name: str, value: Any, n: int, width: int | None) -> None:
    unsupported(name, value, "structured_outputs=StructuredOutputsParams(json=...) is how Python says it")


def _interval(name: str, value: Any, n: int, width: int | None) -> None:
    """How many tokens come at a time where answers are streamed: no answer depends on it."""
    check_int(name, value, 1, MAX_INT)


def _other(ours: str, *neutral: object) -> Check:
    """A check of a field that has another name, and another meaning of its numbers, here."""

    def check(name: str, value: Any, n: int, width: int | None) -> None:
        if not any(type(value) is type(v) and value == v for v in neutral):
            refuse("unsupported_parameter", name, f"{name}={shown(value)}: give {ours}")

    return check


def _output_kind(name: str, value: Any, n: int, width: int | None) -> None:
    """vLLM's RequestOutputKind: generate gives whole answers, whichever of CUMULATIVE and FINAL_ONLY is asked for."""
    if getattr(value, "name", value) not in ("CUMULATIVE", "FINAL_ONLY"):
        unsupported(name, value, "answers come whole; a session streams tokens")


_NO_SUCH = (
    "guided_decoding_backend "
    "chat_template chat_template_kwargs documents prompt_embeds audio web_search_options reasoning_effort "
    "mm_processor_kwargs kv_transfer_params "
    "include_reasoning cache_salt logits_processors extra_args vllm_xargs"
)
REFUSED = frozenset(_NO_SUCH.split())
"""Fields that nothing here does, whatever their value."""
_NOTHING: tuple[object, ...] = ([], {}, "", False)
CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "length_penalty": _number(-100.0, 100.0, 1.0),
        "best_of": _best_of,
        "thinking_token_budget": _only(-1),
        "tools": _tools,
        "functions": _only([]),
        "tool_choice": _only("none", "auto"),
        "function_call": _only("none", "auto"),
        "stream": _only(False),
        "suffix": _only(""),
        "modalities": _only(["text"]),
        "detokenize": _only(True),
        "spaces_between_special_tokens": _only(True),
        "add_generation_prompt": _only(True),
        "add_special_tokens": _only(True),
        "continue_final_message": _only(False),
        "use_beam_search": _only(False),
        "early_stopping": _only(False),
        "lora_request": _other("lora, the name of an adapter that --lora NAME=DIR loads", *_NOTHING),
    }
    | {name: _only(*_NOTHING) for name in sorted(REFUSED)}
)
"""By name; called with the name, the value, the row's `n` and the vocabulary's width where that is known."""
_PYTHON_ONLY: Mapping[str, Check] = MappingProxyType(
    {
        "guided_decoding": _by_form,
        "response_format": _by_form,
        "flat_logprobs": _only(False),
        "output_kind": _output_kind,
        "output_text_buffer_length": _only(0),
        "prompt_logprob_start": _other("logprob_start_len", 0),
        "prompt_logprob_token_ids": _only([]),
        "routed_experts_prompt_start": _only(0),
        "stream_interval": _interval,
        "trace_decode_token_ids": _only([]),
        "skip_clone": _only(False, True),
        "skip_reading_prefix_cache": _only(False),
        "priority": _only(0, [0]),
        "tokenization_kwargs": _only({}),
        "chat_template_content_format": _only("auto", "string", "openai"),
    }
)


def check_neutral(owner: str, given: Mapping[str, Any], known: Iterable[str], n: int = 1) -> None:
    """Check keywords of a Python call that are not obeyed; None asks for nothing, as null does in JSON. Raises
    InvalidRequest for a value that asks for something, TypeError for a name that is in no table, with the nearest
    `known` one."""
    for name, value in given.items():
        if name not in CHECKS and name not in _PYTHON_ONLY:
            raise TypeError(f"{owner}: no keyword {name!r}{nearest(name, known)}")
        if value is not None:
            check = _PYTHON_ONLY.get(name) or CHECKS[name]
            check(name, list(value) if isinstance(value, tuple) else value, n, None)


def takes_neutral(made: type[T]) -> type[T]:
    """A record that is also made from fields of other engines, where these ask for nothing."""
    plain = made.__init__

    @wraps(plain)
    def init(self: T, *places: Any, **given: Any) -> None:
        try:
            plain(self, *places, **given)
        except TypeError:  # rows of files have no such fields, and are many: they do not wait for a look at names
            known = [f.name for f in fields(made)]  # type: ignore[arg-type]
            others = {name: given.pop(name) for name in given.keys() - set(known)}
            if not others:
                raise
            check_neutral(made.__name__, others, known, given.get("n") or 1)
            plain(self, *places, **given)

    made.__init__ = init  # type: ignore[assignment]
    return made
