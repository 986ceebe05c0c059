"""Reads a tokenizer from a model directory: tokenizer.json, and what its configuration files add to it.

tokenizer.json alone decides how text is split and whether bos is put in front, as for transformers'
PreTrainedTokenizerFast (which ignores `add_bos_token` beside a tokenizer.json). The LlamaTokenizer class of
transformers 5 splits otherwise than the file says (no second blank mark before a text that begins with a blank, unknown
characters dropped); models were trained on what the file says, so we keep to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from umbel.errors import ModelError
from umbel.models.config_file import is_text, read_json, refuse_code, shorten
from umbel.tokenizer_growth import check_growth

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
OTHER_FORMATS = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt")
MAX_TOKENIZER_BYTES = 256 * 2**20
MAX_TEMPLATE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files say: the library's tokenizer, the named special tokens, the chat template or (`template_fault`)
    why there is none, whether to clean up."""

    backend: Tokenizer
    named_tokens: dict[str, str]
    template: str | None
    template_fault: str | None
    clean_up: bool


def read_tokenizer(directory: Path) -> TokenizerFiles:
    """The tokenizer of a model directory; raises ModelError when it is missing, damaged or needs code."""
    backend = _read_backend(directory)
    try:
        config = read_json(directory, "tokenizer_config.json", MAX_TEMPLATE_BYTES) or {}
        refuse_code(config, "tokenizer_config.json")
        named = _named_tokens(config, read_json(directory, "special_tokens_map.json") or {})
        _add_missing_tokens(backend, config, named)
        template, fault = _read_template(directory, config)
        return TokenizerFiles(backend, named, template, fault, bool(config.get("clean_up_tokenization_spaces")))
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from None


def _read_backend(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    if not path.is_file():
        others = [name for name in OTHER_FORMATS if (directory / name).is_file()]
        found = f"only {', '.join(others)}" if others else "and no other tokenizer"
        raise ModelError(
            f"{directory}: no tokenizer.json, {found}. Convert once with transformers: "
            "AutoTokenizer.from_pretrained(dir).save_pretrained(dir)"
        )
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise ModelError(f"{path}: {path.stat().st_size:,} bytes; a tokenizer is read up to {MAX_TOKENIZER_BYTES:,}")
    try:
        backend = Tokenizer.from_buffer(path.read_bytes())  # not by its name, which need not be Unicode
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path}: not a tokenizer that can be read ({str(error)[:200]})") from None
    check_growth(backend)
    backend.no_truncation()
    backend.no_padding()
    return backend


def _named_tokens(config: Mapping[str, Any], special_tokens_map: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and so on, each written as a string or as an object with `content`."""
    named = {}
    for name in NAMED_TOKENS:
        token = config.get(name, special_tokens_map.get(name))
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and not is_text(token):
            raise ModelError(f"tokenizer_config.json: {name}={shorten(token)} must be a text")
        if token:
            named[name] = token
    return named


def _add_missing_tokens(backend: Tokenizer, config: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Make special what the configuration names: tokens that tokenizer.json lacks or holds as plain ones."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    declared = config.get("added_tokens_decoder") or {}
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    if not isinstance(declared, dict) or not isinstance(extra, (list, dict)):
        raise ModelError(f"tokenizer_config.json: added tokens are {shorten(declared)} and {shorten(extra)}, not lists")
    listed = [_added_token(declared[key]) for key in sorted(declared, key=_number)]
    listed += [_added_token(field) for field in (extra.values() if isinstance(extra, dict) else extra)]
    listed += [AddedToken(token, special=True) for token in named.values()]
    for token in listed:
        if token.content not in known:
            known.add(token.content)
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])


def _number(key: str) -> int:
    if not key.isdecimal() or len(key) > 10:
        raise ModelError(f"tokenizer_config.json: added_tokens_decoder has the key {shorten(key)}, not a token id")
    return int(key)


def _added_token(field: Any) -> AddedToken:
    if is_text(field):
        return AddedToken(field, special=True)
    if not isinstance(field, dict) or not is_text(field.get("content")):
        raise ModelError(f"tokenizer_config.json: {shorten(field)} is not a token")
    flags = {key: bool(field.get(key)) for key in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(field["content"], normalized=bool(field.get("normalized", not flags["special"])), **flags)


def _read_template(directory: Path, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The chat template, or why there is none: files of their own first, else the configuration's.

    As for transformers, of several the one named default. A fault is no error here: plain prompts need no template.
    """
    files = [directory / "chat_template.jinja", *sorted((directory / "additional_chat_templates").glob("*.jinja"))]
    by_name = {path.stem.replace("chat_template", "default"): path for path in files if path.is_file()}
    if "default" in by_name:
        return _read_template_file(by_name["default"])
    found: Any = dict.fromkeys(by_name) or config.get("chat_template")
    if isinstance(found, list):
        found = {t["name"]: t.get("template") for t in found if isinstance(t, dict) and isinstance(t.get("name"), str)}
    template = found.get("default") if isinstance(found, dict) else found
    if isinstance(template, str):
        return template, None
    if isinstance(found, dict) and found and template is None:
        names = ", ".join(sorted(shorten(name) for name in found))
        return None, f"this model has chat templates named {names}, and none named 'default'"
    if found:
        return None, "chat_template in tokenizer_config.json is neither a text nor texts by name"
    return None, "this model has no chat template"


def _read_template_file(path: Path) -> tuple[str | None, str | None]:
    if path.stat().st_size > MAX_TEMPLATE_BYTES:
        return None, f"{path.name} has over {MAX_TEMPLATE_BYTES:,} bytes"
    try:
        return path.read_text(encoding="utf-8"), None
    except UnicodeDecodeError as error:
        return None, f"{path.name} is not UTF-8 ({error})"
