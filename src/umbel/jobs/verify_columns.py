"""Which columns of an input row `umbel verify` expects on its row of the output, and what makes two of them equal."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from hashlib import blake2b
from typing import Any

ANSWERS = frozenset(
    (
        *("custom_id", "text", "token_ids", "finish_reason", "logprobs", "choices", "usage", "prompt_logprobs"),
        *("scores", "choice", "choice_logprobs", "choice_probabilities", "embedding", "probs", "error"),
    )
)
FILE = "file"
_PROMPTS = frozenset({"prompt", "messages"})
_FIELDS = (
    "model n temperature top_p top_k min_p seed stop stop_token_ids ignore_eos max_tokens min_tokens logprobs "
    "prompt_logprobs logprob_start_len skip_special_tokens include_stop_str_in_output max_completion_tokens "
    "top_logprobs echo presence_penalty frequency_penalty repetition_penalty length_penalty best_of logit_bias "
    "bad_words allowed_token_ids logprob_token_ids tools functions tool_choice function_call response_format stream "
    "suffix modalities detokenize spaces_between_special_tokens add_generation_prompt add_special_tokens "
    "continue_final_message use_beam_search early_stopping structured_outputs guided_json guided_regex guided_choice "
    "guided_grammar guided_decoding_backend structural_tag chat_template chat_template_kwargs documents prompt_embeds "
    "audio web_search_options reasoning_effort thinking_token_budget truncate_prompt_tokens truncation lora techniques "
    "mm_processor_kwargs kv_transfer_params repetition_detection include_reasoning cache_salt lora_request "
    "logits_processors extra_args vllm_xargs continuations choices calibration_prompt pooling_params custom_id"
)
_REQUESTS = _PROMPTS | frozenset(_FIELDS.split())
_BIGGEST = 2**64


@dataclass(frozen=True, slots=True)
class Expected:
    """How a job was asked to bring columns back.

    `keep`: None for all, else their names.
    `id_column`: the column of the ids.
    `table`: the input is one; of JSON lines, fields that a request may have are not looked at.
    `templated`: prompts were made from columns.
    `file`: the name of the file, which is on its rows where it is one of several.
    `loose`: the output is a table, in which a value and its JSON are the same, and so are nothing and an empty text.
    """

    keep: tuple[str, ...] | None = None
    id_column: str | None = None
    table: bool = False
    templated: bool = False
    loose: bool = False
    file: str | None = None

    def of_input(self, fields: Mapping[str, Any]) -> int:
        """A digest of the columns of an input row, under the names that they should have in the output."""
        head = "custom_id" if self.id_column is None else None
        names = [name for name in fields if name != head and (self.keep is None or name in self.keep)]
        left_out = self._left_out()
        names = [name for name in names if name not in left_out]
        own = {} if self.file is None or (self.keep is not None and FILE not in self.keep) else {FILE: self.file}
        found = zip(names, renamed(names, ANSWERS | own.keys()), strict=True)
        return self._digest(own | {shown: fields[name] for name, shown in found if shown not in left_out})

    def of_output(self, item: Mapping[str, Any]) -> int:
        """A digest of the columns of the input that a row of the output has."""
        names = item.keys() - ANSWERS - self._left_out()
        return self._digest({name: item[name] for name in names})

    def _left_out(self) -> frozenset[str]:
        if self.table and not self.templated:
            return frozenset()
        prompts = _PROMPTS | {f"input_{name}" for name in _PROMPTS}
        if self.table or self.keep is not None:
            return prompts
        return prompts | _REQUESTS | {f"input_{name}" for name in _REQUESTS & ANSWERS}

    def _digest(self, columns: Mapping[str, Any]) -> int:
        try:
            plain = {name: _text(value) if self.loose else _plain(value) for name, value in columns.items()}
        except RecursionError:
            return 0  # of a line that is nested too deep, so is an error
        nothing = ("", None) if self.loose else (None,)
        kept = {name: value for name, value in plain.items() if value not in nothing}
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
        return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def renamed(names: Iterable[str], taken: frozenset[str] = ANSWERS) -> list[str]:
    """The names that columns have in the output: one that is taken gets `input_` in front until it is free."""
    given = list(names)
    used = set(given) - taken
    found = []
    for name in given:
        shown = name
        while name in taken and (shown in taken or shown in used):
            shown = f"input_{shown}"
        used.add(shown)
        found.append(shown)
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it; whole numbers are the same with and without a point, nothing is no entry."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if -(_BIGGEST // 2) <= value < _BIGGEST else _plain(float(value))
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return None if value.is_nan() else format(value, "f")
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        if value and all(isinstance(entry, tuple) for entry in value):
            return {str(name): _plain(entry) for name, entry in value}
        return [_plain(entry) for entry in value]
    return str(value)


def _text(value: Any) -> str | None:
    """A value as a cell of text."""
    plain = _plain(value)
    if isinstance(plain, str):
        try:
            plain = _plain(json.loads(plain))
        except (ValueError, RecursionError):
            return plain
    return None if plain is None else json.dumps(plain, sort_keys=True, separators=(",", ":"))
