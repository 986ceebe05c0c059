"""Which tokens a model directory declares beside tokenizer.json, read as transformers' PreTrainedTokenizerFast does.

Places: tokenizer_config.json (`added_tokens_decoder`, `additional_special_tokens`, `extra_special_tokens`,
`model_specific_special_tokens`, and every `..._token`); where that has no `added_tokens_decoder`,
special_tokens_map.json, whose values come first, and added_tokens.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from umbel.errors import ModelError
from umbel.models.config_file import Config, shorten

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTED = "extra_special_tokens"
LISTED_BEFORE = "additional_special_tokens"
NAMED_LIST = "model_specific_special_tokens"
BY_ID = "added_tokens_decoder"
TEMPLATE_NAMES = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
_NOT_OWN = (*NAMED_TOKENS, "add_bos_token", "add_eos_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class Declared:
    """Tokens by name (as chat templates see them), those with an id of their own, and others that are special."""

    named: dict[str, AddedToken]
    by_id: list[AddedToken]
    extra: list[AddedToken]


def read_declared(config: Config, special_map: Config | None, added: Config | None) -> Declared:
    """What tokenizer_config.json, special_tokens_map.json and added_tokens.json declare. Raises ModelError."""
    merged = dict(config)
    if not merged.get(LISTED):
        merged[LISTED] = merged.get(LISTED_BEFORE)
    if config.get(BY_ID) is not None:
        by_id = _by_id(config[BY_ID])
    else:
        _merge(merged, special_map or {})
        by_id = _from_added(added or {}, {token.content for token in (*_standard(merged).values(), *_extra(merged))})
        merged[LISTED] = merged[LISTED] or merged.get(LISTED_BEFORE)
    named = _standard(merged) | _own_names(merged)
    if reserved := sorted(named.keys() & TEMPLATE_NAMES):
        raise ModelError(f"a special token is named {reserved[0]!r}, as what chat templates are given: rename it")
    return Declared(named, by_id, _extra(merged))


def _merge(merged: dict[str, Any], special_map: Config) -> None:
    """Put the values of special_tokens_map.json over those of the configuration; lists of further tokens add up."""
    for key, value in special_map.items():
        before = merged.get(key) or []
        adds_up = key == LISTED and isinstance(value, list) and isinstance(before, list)
        merged[key] = [*before, *value] if adds_up else value


def _standard(merged: Config) -> dict[str, AddedToken]:
    return {key: _token(key, merged[key]) for key in NAMED_TOKENS if merged.get(key) is not None}


def _own_names(merged: Config) -> dict[str, AddedToken]:
    """Tokens with names of the model's own, in the order in which transformers adds them."""
    own = {key: value for key, value in merged.items() if key.endswith("_token") and key not in _NOT_OWN}
    named = {key: _token(key, value) for key, value in own.items() if _is_typed(value)}
    named |= {key: _token(key, value) for key, value in own.items() if isinstance(value, str)}
    for key in (LISTED, NAMED_LIST):
        group = merged.get(key)
        if isinstance(group, dict):
            named |= {name: _token(f"{key}.{name}", value) for name, value in group.items()}
    return named


def _extra(merged: Config) -> list[AddedToken]:
    listed = merged[LISTED]
    if listed is not None and not isinstance(listed, (list, dict)):
        raise ModelError(f"{LISTED}={shorten(listed)}: must be a list of tokens")
    return [] if isinstance(listed, dict) else [_token(f"{LISTED}[{i}]", token) for i, token in enumerate(listed or [])]


def add_declared(backend: Tokenizer, declared: Declared) -> None:
    """Add to a tokenizer the tokens that it lacks, and those that it holds with other flags."""
    held = list(backend.get_added_tokens_decoder().values())
    states = [token.__getstate__() for token in held]
    missing = [token for token in declared.by_id if token.__getstate__() not in states]
    known = {token.content for token in (*held, *missing)}
    special = {token.content for token in (*declared.named.values(), *(t for t in held if t.special))}
    missing += [token for token in (*declared.named.values(), *declared.extra) if token.content not in known]
    for token in missing:
        token.special = token.special or token.content in special
    backend.add_tokens(missing)


def _by_id(declared: object) -> list[AddedToken]:
    """The tokens of `added_tokens_decoder` in the order of their ids."""
    if not isinstance(declared, dict):
        raise ModelError(f"{BY_ID}={shorten(declared)}: must be an object of tokens by id")
    for key in declared:
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise ModelError(f"{BY_ID} has the key {shorten(key)}: must be a token id")
    return [_token(f"{BY_ID}[{key}]", declared[key], special=False) for key in sorted(declared, key=int)]


def _from_added(added: Mapping[str, Any], special: set[str]) -> list[AddedToken]:
    """The tokens of added_tokens.json, id by text; they are special where they are declared elsewhere too."""
    for text, number in added.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise ModelError(f"added_tokens.json: {shorten(text)} has {shorten(number)}: must be a token id")
    texts = sorted(added, key=lambda text: added[text])
    return [_made(text, {"normalized": text not in special, "special": text in special}) for text in texts]


def _is_typed(value: object) -> bool:
    return isinstance(value, dict) and value.get("__type") == "AddedToken"


def _token(key: str, value: object, *, special: bool = True) -> AddedToken:
    """A token written as a text, or as an object with its flags (`special` where it does not say)."""
    if isinstance(value, str):
        return _made(value, {"special": True})
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(content, str):
        raise ModelError(f"{key}={shorten(value)}: must be a token, as a text or as an object with content")
    flags = {name: value[name] for name in _FLAGS if value.get(name) is not None}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ModelError(f"{key}.{name}={shorten(flag)}: must be true or false")
    return _made(content, {"special": special} | flags)


def _made(content: str, flags: Mapping[str, bool]) -> AddedToken:
    try:
        content.encode()
    except UnicodeEncodeError:
        raise ModelError(f"the token {shorten(content)} is not valid Unicode") from None
    return AddedToken(content, **flags)
