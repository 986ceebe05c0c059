"""Text to token ids and back, in bulk, exactly as the model's own Hugging Face tokenizer does.

`tokenizer.json` is the source of truth; `tokenizer_config.json` adds special tokens and the chat template. Uses the
`tokenizers` library alone, as importing transformers takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.errors import InvalidRequest, ModelError
from umbel.ir.chat import PLAIN_CHAT, Chat, ChatOptions, Message
from umbel.text.bad_words import WordRuns
from umbel.text.files import TokenizerFiles, of_library, read_tokenizer
from umbel.text.shared_beginnings import SharedBeginnings, breaks_of
from umbel.text.text_decoder import TextDecoder

if TYPE_CHECKING:
    from umbel.text.chat_template import ChatTemplate
    from umbel.text.masker import Masker

CHECKED = 16
MISFITS, FEW = 0.01, 16  # share and number of ids without an embedding that a fine-tune may have added
MOST_ID = 2**31 - 1


class Tokenizer:
    """A loaded tokenizer; build it with `Tokenizer.load`."""

    def __init__(self, files: TokenizerFiles, now: datetime):
        self._notes = files.notes
        self.backend = files.backend
        self.special_tokens = files.named_tokens
        self.decoder = TextDecoder(files.backend, clean_up=files.clean_up)
        self._template_source = files.template
        self._template_fault = files.template_fault
        breaks = breaks_of(files.backend)
        self._shared = None if breaks is None else SharedBeginnings(breaks, self._encode_plain)
        self._shared_checked = False
        self._now = now
        self.word_runs = WordRuns(self._encode_plain)
        self._maskers: dict[tuple[Callable[..., Masker], int, tuple[int, ...]], Masker] = {}

    @classmethod
    def load(cls, directory: Path, now: datetime | None = None) -> Tokenizer:
        """Read the tokenizer of a model directory; raises ModelError when it is missing, damaged or needs code.

        `now` is the moment that chat templates see as today (default: now), the same for every row of a job.
        """
        return cls(read_tokenizer(directory), now or datetime.now())

    @property
    def notes(self) -> tuple[str, ...]:
        """Texts for the user: what of its files is not obeyed, and what its chat template has not read so far."""
        unread = "" if self._template_source is None or self._template is None else self._template.unread
        return (*self._notes, unread) if unread else self._notes

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Token ids of each text; raises InvalidRequest if one cannot be encoded (then encode them one by one)."""
        try:
            return [e.ids for e in self.backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidRequest("invalid_text", f"text that is not valid Unicode ({error})", "prompt") from None
        except BaseException as error:
            if not of_library(error):
                raise
            message = f"text that the model's tokenizer cannot split ({str(error)[:200]})"
            raise InvalidRequest("invalid_text", message, "prompt") from None

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN_CHAT) -> str:
        """The prompt text of a conversation; raises InvalidRequest where the template gives none."""
        (found,) = self.render_all([Chat(messages, options)])
        if isinstance(found, InvalidRequest):
            raise found
        return found

    def render_all(self, conversations: Sequence[Chat]) -> list[str | InvalidRequest]:
        """The prompt text of each conversation by the model's chat template, or why it has none."""
        if self._template is None:
            message = f"{self._template_fault}: give 'prompt' instead of 'messages'"
            return [InvalidRequest("missing_chat_template", message, "messages") for _ in conversations]
        return self._template.render_all(conversations)

    def encode_chat(self, conversations: Sequence[Chat]) -> list[list[int] | InvalidRequest]:
        """Token ids of each conversation, or why it has no prompt text; raises InvalidRequest as `encode` does."""
        found = self.render_all(conversations)
        ids = iter(self.encode_rendered([text for text in found if isinstance(text, str)]))
        return [next(ids) if isinstance(text, str) else text for text in found]

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered conversations: the template wrote the special tokens itself, so none are added."""
        if self._shared is None:
            return self._encode_plain(texts)
        found = self._shared.encode(texts)
        if not self._shared_checked:  # what was reasoned about the tokenizer is held to the first texts it gets
            self._shared_checked = True
            if found[:CHECKED] != self._encode_plain(texts[:CHECKED]):
                self._shared = None
                return self._encode_plain(texts)
        return found

    def _encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encode(texts, add_special_tokens=False)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids; unknown ids give no text."""
        return self.decode_batch([ids], skip_special_tokens=skip_special_tokens)[0]

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each row of token ids."""
        return self.decoder.decode_batch(rows, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id adds to a text when it is not its first token; an unknown id adds none."""
        return self.decoder.token_bytes(ids)

    def token_text(self, token_id: int) -> str | None:
        """The vocabulary entry of an id, None when there is none."""
        return self.decoder.token_text(token_id)

    def masker(self, make: Callable[..., Masker], width: int, ends: tuple[int, ...]) -> Masker:
        """What follows forms of answers of a model with a vocabulary of this `width`, whose texts `ends` end: made once
        by `make`, of a Vocabulary. Raises InvalidRequest where the model names no end."""
        if not ends:
            message = "structured_outputs: config.json names no eos_token_id, so that no answer could end"
            raise InvalidRequest("unsupported_parameter", message, "structured_outputs")
        if (make, width, ends) not in self._maskers:
            special = [i for i in self.special_ids if i < width]
            encode = lambda text: self._encode_plain([text])[0]  # noqa: E731
            self._maskers[make, width, ends] = make(self.token_bytes(range(width)), special, ends, encode)
        return self._maskers[make, width, ends]

    def check_fits(self, embedding_rows: int) -> None:
        """Raise ModelError when many of the tokenizer's ids have no embedding: it belongs to another model then.

        A few of them, such as a padding token that a fine-tune added, are fine: only rows that use one of them fail.
        """
        ids = self.backend.get_vocab(with_added_tokens=True).values()
        beyond = sum(i >= embedding_rows for i in ids)
        if beyond > max(FEW, MISFITS * len(ids)) or max(ids, default=0) > MOST_ID:
            raise ModelError(
                f"tokenizer ids go up to {max(ids)}, config.json's vocab_size is {embedding_rows}: "
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

    @cached_property
    def _template(self) -> ChatTemplate | None:
        """The chat template, made on first use, as most jobs of plain prompts never need it."""
        from umbel.text.chat_template import ChatTemplate

        if self._template_source is None:
            return None
        return ChatTemplate(self._template_source, self.special_tokens, self._now)

    @property
    def template_text(self) -> str | None:
        """The text of the chat template, None where there is none."""
        return self._template_source

    @property
    def has_chat_template(self) -> bool:
        """Whether there is a template for conversations."""
        return self._template_source is not None

    @property
    def template_hash(self) -> str:
        """Digest (hex) of everything that shapes a rendered chat, for a job's fingerprint."""
        content = json.dumps([self._template_source, sorted(self.special_tokens.items())])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that `skip_special_tokens` leaves out."""
        return self.decoder.special_ids

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.backend.token_to_id(token)
