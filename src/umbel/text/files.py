"""Reads a tokenizer from a model directory: tokenizer.json, and what its configuration files add to it.

tokenizer.json alone decides how text is split and whether bos is put in front, as for transformers'
PreTrainedTokenizerFast (which ignores `add_bos_token` beside a tokenizer.json). The LlamaTokenizer class of
transformers 5 splits in another way than the file says (no second blank mark before a text that begins with a blank,
unknown characters dropped); models were trained on what the file says, so it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer
from tokenizers.models import BPE

from umbel.errors import ModelError
from umbel.models.config_file import Config, flag_of, refuse_code, shorten
from umbel.models.sources.base import ModelSource
from umbel.models.sources.find import source_at
from umbel.text.growth import check_around, check_growth
from umbel.text.keys import key_notes
from umbel.text.special_tokens import Declared, add_declared, read_declared

OTHER_FORMATS = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt")
MAX_TOKENIZER_BYTES = 256 * 2**20
MAX_TEMPLATE_BYTES = 4 * 2**20
CLEANS_UP_BPE = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The contents of a model directory's tokenizer files.

    `backend`: the library's tokenizer.
    `named_tokens`: special tokens by name.
    `template`, `template_fault`: the chat template, or why there is none.
    `clean_up`: whether decoded texts are cleaned up.
    `notes`: texts for the user: what is not obeyed.
    """

    backend: Tokenizer
    named_tokens: dict[str, str]
    template: str | None
    template_fault: str | None
    clean_up: bool
    notes: tuple[str, ...] = ()


def read_tokenizer(directory: Path) -> TokenizerFiles:
    """The tokenizer of a model directory; raises ModelError when it is missing, damaged or needs code."""
    source = source_at(directory)
    backend = _read_backend(source)
    try:
        config = source.read_json("tokenizer_config.json", MAX_TEMPLATE_BYTES) or {}
        refuse_code(config, "tokenizer_config.json")
        declared = _declared(source, config)
        _within_library("its special tokens", lambda: add_declared(backend, declared))
        check_around(backend)
        notes, cleans_up = _configure(backend, config), _cleans_up(backend, config)
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from None
    template, fault = _read_template(source, config)
    named = {name: token.content for name, token in declared.named.items()}
    return TokenizerFiles(backend, named, template, fault, cleans_up, notes)


def _declared(source: ModelSource, config: Config) -> Declared:
    special_map = source.read_json("special_tokens_map.json")
    try:
        return read_declared(config, special_map, source.read_json("added_tokens.json"))
    except ModelError as error:
        places = "tokenizer_config.json" + (" or special_tokens_map.json" if special_map else "")
        raise ModelError(f"{places}: {error}") from None


def _read_backend(source: ModelSource) -> Tokenizer:
    directory, path = source.path, source.place("tokenizer.json")
    raw = source.read("tokenizer.json", MAX_TOKENIZER_BYTES)
    if raw is None:
        others = [name for name in OTHER_FORMATS if source.has(name)]
        found = f"only {', '.join(others)}" if others else "and no other tokenizer"
        raise ModelError(
            f"{directory}: no tokenizer.json, {found}. Convert once with transformers: "
            "AutoTokenizer.from_pretrained(dir).save_pretrained(dir)"
        )
    backend = _within_library(f"{path}: not a tokenizer that can be read", lambda: Tokenizer.from_buffer(raw))
    try:
        check_growth(backend)
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def of_library(error: BaseException) -> bool:
    """Whether an exception is a failure of a library: panics of Rust code are no `Exception`."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def _within_library(what: str, call: Callable[[], T]) -> T:
    """Call the library; anything that it raises, panics included, becomes an error of the file."""
    try:
        return call()
    except BaseException as error:
        if not of_library(error):
            raise
        raise ModelError(f"{what} ({str(error)[:200]})") from None


def _configure(backend: Tokenizer, config: Config) -> tuple[str, ...]:
    """Apply the settings that change how texts are split; returns notes on what is not obeyed."""
    notes = key_notes(config)
    backend.encode_special_tokens = flag_of(config, "split_special_tokens")
    if getattr(backend.model, "dropout", None):
        notes += (f"tokenizer.json: dropout={backend.model.dropout:g} is not applied: a text has one encoding",)
        backend.model.dropout = None
    return notes


def _cleans_up(backend: Tokenizer, config: Config) -> bool:
    """Whether texts are cleaned up, as transformers does to those of WordPiece and Unigram models that ask for it."""
    return flag_of(config, "clean_up_tokenization_spaces") and (
        not isinstance(backend.model, BPE) or flag_of(config, CLEANS_UP_BPE)
    )


def _read_template(source: ModelSource, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The chat template, or why there is none: files of their own first, else the configuration's.

    As for transformers, of several the one named default. A fault is no error here: plain prompts need no template.
    """
    by_name = source.templates()
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
