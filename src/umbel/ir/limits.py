"""The caps on everything a row may ask for, and the checks that name the value and the limit."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from umbel.errors import InvalidRequest

MAX_N = 16_384
MAX_STOP = 64
MAX_STOP_CHARS = 4_096
MAX_TECHNIQUES = 16
MAX_STOP_TOKEN_IDS = 1_024
MAX_LOGPROBS = 20
TRUNCATIONS = ("error", "skip", "left", "right", "middle")
MAX_INT = 2**31 - 1
SEED_MIN, SEED_MAX = -(2**63), 2**63 - 1
MAX_TEMPERATURE = 100.0
MAX_REPETITION_PENALTY = 100.0
MAX_LOGIT_BIAS = 100.0
MAX_LOGIT_BIASES = 2**16
MAX_BAD_WORDS = 1_000
MAX_LOGPROB_IDS = 128
MAX_ALLOWED_IDS = 2**20
MAX_CUSTOM_ID_CHARS = 512
MAX_LINE_BYTES = 16 * 2**20
MAX_DEPTH = 128
"""Of lists and objects within one another in a row."""
NO_WORDS = "bad_words need a tokenizer; a logit_bias of -100 or allowed_token_ids need none"
CHARS_PER_POSITION = 1_024
"""No vocabulary in use has a token of more than about 128 characters; what is far beyond is not tokenised at all."""
MIN_MAX_CHARS = 2**20


def refuse(code: str, param: str, message: str) -> NoReturn:
    """Raise InvalidRequest about field `param`."""
    raise InvalidRequest(code, message, param)


def check_lora(value: object) -> None:
    """Raise InvalidRequest for what cannot be the name of an adapter; None asks for none."""
    if value is not None and not isinstance(value, str):
        refuse("invalid_type", "lora", f"lora={shown(value)}: must be the name of an adapter")


def check_techniques(value: object) -> tuple[str, ...] | None:
    """The names of the techniques that a row takes, None for all; raises InvalidRequest for what are none."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        refuse("invalid_type", "techniques", f"techniques={shown(value)}: must be a list of names; [] asks for none")
    if len(value) > MAX_TECHNIQUES:
        refuse("invalid_value", "techniques", f"techniques has {len(value):,} entries: at most {MAX_TECHNIQUES}")
    return tuple(value)


def shown(value: object) -> str:
    """A value as it appears in an error message, cut to a bounded length."""
    if isinstance(value, str) and len(value) > 80:
        return f"{value[:60]!r}... ({len(value):,} characters)"
    if isinstance(value, (list, tuple, dict)) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value):,} entries"
    text = _brief().repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({type(value).__name__})"


def _brief() -> reprlib.Repr:
    """A `repr` that looks at few entries and few levels of a value, so that its cost is bounded."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 4, 120, 120
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = 8
    return brief


def check_int(param: str, value: object, low: int, high: int) -> int:
    """Check for a whole number within [low, high]; `invalid_type` or `invalid_value` otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        if isinstance(value, float) and abs(value) >= 2**63:  # how JSON readers give integers beyond 64 bits
            refuse("invalid_value", param, f"{param}={value!r}: must be at most {high}")
        refuse("invalid_type", param, f"{param}={shown(value)}: must be a whole number")
    if not low <= value <= high:
        refuse("invalid_value", param, f"{param}={value}: must be from {low} to {high}")
    return int(value)


def check_number(param: str, value: object, low: float, high: float, *, above_low: bool = False) -> float:
    """Check for a finite number within [low, high], or (low, high] with `above_low`; strings and booleans are no
    numbers."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        refuse("invalid_type", param, f"{param}={shown(value)}: must be a number")
    if not low <= value <= high or (above_low and value == low):  # also false for NaN
        bracket = "above" if above_low else "from"
        refuse("invalid_value", param, f"{param}={value}: must be {bracket} {low:g} to {high:g}")
    return float(value)


def check_bool(param: str, value: object) -> bool:
    """Check for true or false, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        refuse("invalid_type", param, f"{param}={shown(value)}: must be true or false")
    return value


def check_choice(param: str, value: object, choices: Sequence[str]) -> str:
    """Check for one of some names."""
    if not isinstance(value, str) or value not in choices:
        refuse("invalid_value", param, f"{param}={shown(value)}: must be one of {', '.join(choices)}")
    return value


def check_stop(value: object) -> tuple[str, ...]:
    """The stop strings: one, or up to 64; none of them empty."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        refuse("invalid_type", "stop", f"stop={shown(value)}: must be a string or a list of strings")
    if len(value) > MAX_STOP:
        refuse("invalid_value", "stop", f"stop has {len(value):,} entries: at most {MAX_STOP}")
    for entry in value:
        if not isinstance(entry, str):
            refuse("invalid_type", "stop", f"stop entry {shown(entry)}: must be a string")
        if not entry or len(entry) > MAX_STOP_CHARS:
            refuse("invalid_value", "stop", f"stop entry {shown(entry)}: must have 1 to {MAX_STOP_CHARS:,} characters")
    return tuple(value)


def check_logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    """The biases as pairs, by ascending token id: given as an object of biases by id, or as the pairs."""
    if isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    if not isinstance(value, Mapping):
        refuse("invalid_type", "logit_bias", f"logit_bias={shown(value)}: must be an object of token id to bias")
    if len(value) > MAX_LOGIT_BIASES:
        refuse("invalid_value", "logit_bias", f"logit_bias has {len(value):,} entries: at most {MAX_LOGIT_BIASES:,}")
    found: dict[int, float] = {}
    for key, bias in value.items():
        digits = str(key) if isinstance(key, (int, np.integer)) and not isinstance(key, bool) else key
        if not (isinstance(digits, str) and digits.isascii() and digits.isdigit() and len(digits) <= 10):
            refuse("invalid_value", "logit_bias", f"logit_bias key {shown(key)}: must be a token id")
        number = check_number(f"logit_bias[{key}]", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
        if found.setdefault(int(digits), number) != number:
            refuse("invalid_value", "logit_bias", f"logit_bias has token {int(digits)} twice, with different biases")
    return tuple(sorted(found.items()))


def check_bad_words(value: object) -> tuple[str, ...]:
    """The texts that must not be completed; none of them empty, each once."""
    if not isinstance(value, (list, tuple)):
        refuse("invalid_type", "bad_words", f"bad_words={shown(value)}: must be a list of strings")
    if len(value) > MAX_BAD_WORDS:
        refuse("invalid_value", "bad_words", f"bad_words has {len(value):,} entries: at most {MAX_BAD_WORDS:,}")
    for entry in value:
        if not isinstance(entry, str):
            refuse("invalid_type", "bad_words", f"bad_words entry {shown(entry)}: must be a string")
        if not entry.strip() or len(entry) > MAX_STOP_CHARS:
            wanted = f"must have 1 to {MAX_STOP_CHARS:,} characters, not only blanks"
            refuse("invalid_value", "bad_words", f"bad_words entry {shown(entry)}: {wanted}")
    return tuple(dict.fromkeys(value))


def check_allowed_ids(value: object) -> tuple[int, ...]:
    """The tokens that alone may be drawn: one at least."""
    ids = check_id_list("allowed_token_ids", value, MAX_ALLOWED_IDS)
    if not ids:
        refuse("invalid_value", "allowed_token_ids", "allowed_token_ids=[]: no token could be drawn; remove the field")
    return ids


def check_id_list(param: str, value: object, cap: int) -> tuple[int, ...]:
    """Check for a list of at most `cap` token ids, each a whole number that is not negative."""
    if not isinstance(value, (list, tuple)):
        refuse("invalid_type", param, f"{param}={shown(value)}: must be a list of token ids")
    if len(value) > cap:
        refuse("invalid_value", param, f"{param} has {len(value):,} entries: at most {cap:,}")
    for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)):
            refuse("invalid_type", param, f"{param} entry {shown(entry)}: must be a token id")
        if not 0 <= entry <= MAX_INT:
            refuse("invalid_token_id", param, f"{param} entry {entry}: token ids are from 0 to {MAX_INT}")
    return tuple(int(entry) for entry in value)


def check_token_ids(ids: Sequence[int], width: int, param: str = "prompt") -> None:
    """Check that every id lies within the vocabulary (0 to width - 1); `invalid_token_id` names the first that does
    not."""
    if len(ids) and (min(ids) < 0 or max(ids) >= width):
        at, bad = next((i, t) for i, t in enumerate(ids) if not 0 <= t < width)
        refuse("invalid_token_id", param, f"{param}[{at}] is {bad}: this model's token ids are from 0 to {width - 1}")


def check_prompt_ids(ids: Sequence[Any]) -> None:
    """Check that a prompt given as numbers holds whole numbers only (the vocabulary is checked elsewhere)."""
    if set(map(type, ids)) <= {int}:  # the common case at C speed; a bool's type is not int
        return
    for at, bad in enumerate(ids):
        if isinstance(bad, bool) or not isinstance(bad, (int, np.integer)):
            message = f"prompt[{at}] is {shown(bad)}: a list prompt holds token ids (whole numbers)"
            refuse("invalid_type", "prompt", message)


def check_room(prompt_tokens: int, min_tokens: int, context: int, max_tokens: int | None = None) -> None:
    """Check that the prompt has tokens and leaves room for at least one more (or `min_tokens`; none where `max_tokens`
    is 0). Raises InvalidRequest.

    A `max_tokens` beyond the room that is left is no error: the row ends at the context's end, by length.
    """
    if prompt_tokens == 0:
        refuse("empty_prompt", "prompt", "the prompt has no tokens")
    wanted = 0 if max_tokens == 0 else max(1, min_tokens)
    if prompt_tokens + wanted > context:
        more = f" and needs room for {wanted} more" if wanted else ""
        message = f"the prompt has {prompt_tokens} tokens{more}; the context is {context}"
        refuse("context_length_exceeded", "prompt", message)


def check_chars(n_chars: int, context: int) -> None:
    """Check that a text is not so long that it cannot fit, whatever its tokens are; this saves the time of tokenising
    it."""
    most = max(MIN_MAX_CHARS, CHARS_PER_POSITION * context)
    if n_chars > most:
        message = (
            f"the prompt has {n_chars:,} characters: more than {most:,} are not tokenised; the context is {context}"
        )
        refuse("context_length_exceeded", "prompt", message)
