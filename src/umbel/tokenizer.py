"""Text to token ids and back, in bulk, exactly as the model's own Hugging Face tokenizer does.

`tokenizer.json` is the truth; `tokenizer_config.json` adds special tokens, the chat template and whether prompts begin
with bos. Uses the `tokenizers` library alone, as importing transformers takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from umbel.chat_template import ChatTemplate, Message
from umbel.errors import InvalidRequest, ModelError
from umbel.models.config_file import read_json, refuse_code

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_TOKENIZER_BYTES = 256 * 2**20
MAX_CHAT_TEMPLATE_BYTES = 4 * 2**20
OTHER_FORMATS = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt")
CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"))
CLEAN_UP_MORE = ((" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))


class Tokenizer:
    """A loaded tokenizer; build it with `Tokenizer.load`."""

    def __init__(self, backend: Backend, special_tokens: Mapping[str, str], template: str | None, **options: Any):
        self.backend = backend
        self.special_tokens = dict(special_tokens)
        self._template_source = template
        self._now: datetime = options.get("now") or datetime.now()
        self.cleans_up = bool(options.get("clean_up")) and not isinstance(backend.model, BPE)
        self._template = None if template is None else ChatTemplate(template, special_tokens, self._now)

    @classmethod
    def load(cls, directory: Path, now: datetime | None = None) -> Tokenizer:
        """Read the tokenizer of a model directory; raises ModelError when it is missing, damaged or needs code.

        `now` is the moment that chat templates see as today (default: now), the same for every row of a job.
        """
        backend = _read_backend(directory)
        config = read_json(directory, "tokenizer_config.json", MAX_CHAT_TEMPLATE_BYTES) or {}
        refuse_code(config, "tokenizer_config.json")
        named = _named_tokens(config, read_json(directory, "special_tokens_map.json") or {})
        _add_missing_tokens(backend, config, named)
        _set_bos_and_eos(backend, config, named)
        try:
            clean_up = config.get("clean_up_tokenization_spaces", False)
            return cls(backend, named, _template_source(directory, config), now=now, clean_up=clean_up)
        except ModelError as error:
            raise ModelError(f"{directory}: {error}") from None

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of each text; raises InvalidRequest if one cannot be encoded (then encode them one by one)."""
        try:
            return [e.ids for e in self.backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidRequest("invalid_text", f"text that is not valid Unicode ({error})", "prompt") from None

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text of a conversation, by the model's chat template, ready for the assistant's answer."""
        if self._template is None:
            message = "this model has no chat template: give 'prompt' instead of 'messages'"
            raise InvalidRequest("missing_chat_template", message, "messages")
        return self._template.render(messages)

    def encode_chat(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each conversation; the template writes the special tokens itself, so none are added."""
        return self.encode([self.render(messages) for messages in conversations], add_special_tokens=False)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids; ids that the tokenizer does not know give nothing."""
        return self._cleaned(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each row of token ids."""
        texts = self.backend.decode_batch(rows, skip_special_tokens=skip_special_tokens)
        return [self._cleaned(text) for text in texts] if self.cleans_up else texts

    def token_text(self, token_id: int) -> str | None:
        """The vocabulary entry of an id, None when there is none."""
        return self.backend.id_to_token(token_id)

    def check_fits(self, embedding_rows: int) -> None:
        """Raise ModelError when the tokenizer can give ids for which the model has no embedding."""
        largest = max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if largest >= embedding_rows:
            raise ModelError(
                f"tokenizer ids go up to {largest}, config.json's vocab_size is {embedding_rows}: "
                "tokenizer and model do not belong together"
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def bos_id(self) -> int | None:
        """The id of the token that begins a text, None when the tokenizer names none."""
        return self._named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """The id of the token that ends a text, None when the tokenizer names none."""
        return self._named_id("eos_token")

    @property
    def has_chat_template(self) -> bool:
        """Whether `render` and `encode_chat` work."""
        return self._template is not None

    @property
    def template_hash(self) -> str:
        """Digest of all that shapes a rendered chat (hex), for a job's fingerprint."""
        content = json.dumps([self._template_source, sorted(self.special_tokens.items())])
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that `skip_special_tokens` leaves out."""
        return frozenset(i for i, token in self.backend.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """Ids of single bytes (`<0x41>`), where the tokenizer spells unknown characters with them."""
        if "ByteFallback" not in str(json.loads(self.backend.to_str()).get("decoder")):
            return frozenset()
        names = [f"<0x{byte:{form}}>" for byte in range(256) for form in ("02X", "02x")]
        ids = (self.backend.token_to_id(name) for name in names)
        return frozenset(i for i in ids if i is not None)

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.backend.token_to_id(token)

    def _cleaned(self, text: str) -> str:
        # transformers does this to WordPiece and Unigram models that ask for it, never to BPE ones.
        for before, after in (*CLEAN_UP, *CLEAN_UP_MORE) if self.cleans_up else ():
            text = text.replace(before, after)
        return text


def _read_backend(directory: Path) -> Backend:
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
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path}: not a tokenizer that can be read ({str(error)[:200]})") from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def _named_tokens(config: Mapping[str, Any], special_tokens_map: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and so on, each written as a string or as an object with `content`."""
    named = {}
    for name in NAMED_TOKENS:
        token = config.get(name, special_tokens_map.get(name))
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and not isinstance(token, str):
            raise ModelError(f"tokenizer_config.json: {name}={str(token)[:80]!r} must be a string")
        if token:
            named[name] = token
    return named


def _add_missing_tokens(backend: Backend, config: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Make special what the configuration names: tokens that tokenizer.json lacks or holds as plain ones."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    declared = config.get("added_tokens_decoder")
    fields = [declared[key] for key in sorted(declared, key=_number)] if isinstance(declared, dict) else []
    listed = [_added_token(field) for field in fields]
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    listed += [_added_token(field) for field in (extra.values() if isinstance(extra, dict) else extra)]
    listed += [AddedToken(token, special=True) for token in named.values()]
    for token in listed:
        if token.content not in known:
            known.add(token.content)
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])


def _number(key: str) -> int:
    if not key.isdecimal():
        raise ModelError(f"tokenizer_config.json: added_tokens_decoder has the key {key[:80]!r}, not a token id")
    return int(key)


def _added_token(field: Any) -> AddedToken:
    if isinstance(field, str):
        return AddedToken(field, special=True)
    if not isinstance(field, dict) or not isinstance(field.get("content"), str):
        raise ModelError(f"tokenizer_config.json: {str(field)[:80]!r} is not a token")
    flags = {key: bool(field.get(key)) for key in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(field["content"], normalized=bool(field.get("normalized", not flags["special"])), **flags)


def _set_bos_and_eos(backend: Backend, config: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Where the configuration says whether prompts get bos and eos, that replaces what tokenizer.json does."""
    if "add_bos_token" not in config and "add_eos_token" not in config:
        return
    bos = named.get("bos_token") if config.get("add_bos_token") else None
    eos = named.get("eos_token") if config.get("add_eos_token") else None
    around = [(token, backend.token_to_id(token)) for token in (bos, eos) if token is not None]
    single = [*([f"{bos}:0"] if bos else []), "$A:0", *([f"{eos}:0"] if eos else [])]
    backend.post_processor = TemplateProcessing(single=single, pair=None, special_tokens=around)


def _template_source(directory: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: the file of its own first, else the configuration's (the one named default)."""
    path = directory / "chat_template.jinja"
    if path.is_file():
        if path.stat().st_size > MAX_CHAT_TEMPLATE_BYTES:
            raise ModelError(f"{path.name}: over {MAX_CHAT_TEMPLATE_BYTES:,} bytes")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{path.name}: not UTF-8 ({error})") from None
    template = config.get("chat_template")
    if isinstance(template, list):
        template = _named_template(template)
    if template is not None and not isinstance(template, str):
        raise ModelError("tokenizer_config.json: chat_template must be a string or a list of named templates")
    return template


def _named_template(templates: Iterable[Any]) -> Any:
    by_name = {
        t["name"]: t.get("template") for t in templates if isinstance(t, dict) and isinstance(t.get("name"), str)
    }
    return by_name.get("default")
