"""The model's tokenizer under the names that transformers has for it, as scripts for vLLM use what `get_tokenizer`
gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from umbel.ir.chat import CHAT_FIELDS, chat_options
from umbel.ir.neutral import CHECKS, check_neutral
from umbel.ir.prompts import check_messages
from umbel.text.tokenizer import Tokenizer

_KEYWORDS = ("tokenize", "add_generation_prompt")


class HubTokenizer:
    """Encodes, decodes and renders chats as transformers' tokenizer of the model does; it has nothing else of it."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text. Raises InvalidRequest for one that the tokenizer cannot split."""
        return self._tokenizer.encode([text], add_special_tokens=add_special_tokens)[0]

    def decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        """The texts of several lists of token ids."""
        return self._tokenizer.decode_batch(sequences, skip_special_tokens=skip_special_tokens)

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **others: Any,
    ) -> str | list[int]:
        """The prompt of a conversation, as text or as token ids. `others`: `tools`, `documents`,
        `continue_final_message`, and variables of the template. Raises InvalidRequest."""
        asked = {name: others.pop(name) for name in CHAT_FIELDS & others.keys()}
        known = {name: others.pop(name) for name in CHECKS.keys() & others.keys()}
        check_neutral("apply_chat_template", known, _KEYWORDS)
        variables = {**others, **(asked.pop("chat_template_kwargs", None) or {})}
        asked |= {"add_generation_prompt": add_generation_prompt, "chat_template_kwargs": variables}
        text = self._tokenizer.render(check_messages(list(conversation)), chat_options(asked))
        return self._tokenizer.encode_rendered([text])[0] if tokenize else text

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that begins a text, None where there is none."""
        return self._tokenizer.bos_id

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token that ends a text, None where there is none."""
        return self._tokenizer.eos_id

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included."""
        return self._tokenizer.vocab_size

    def __len__(self) -> int:
        return self._tokenizer.vocab_size

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"this tokenizer has no {name!r}; transformers.AutoTokenizer reads the same files")
