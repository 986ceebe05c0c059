"""How to sample one row: vLLM's names, checked once for every way in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from umbel.ir import limits
from umbel.ir.limits import check_bool, check_int, check_number, refuse
from umbel.ir.neutral import takes_neutral
from umbel.ir.pooling import PoolingParams, without_answer
from umbel.ir.repetition import RepetitionDetection
from umbel.ir.structured import StructuredOutputsParams, structured_of


@takes_neutral
@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling fields of a row, with vLLM's names and defaults (except `max_tokens`: None = up to the context end).

    Raises InvalidRequest when a field has the wrong type or lies outside its limits (`ir/limits.py`), so a value that
    exists is a value the engine can run. `top_k` 0 and -1 both mean all tokens; `stop` may be given as one string;
    `logprobs` k asks for the chosen token and the k most likely ones, `prompt_logprobs` k for the same of the prompt's
    tokens, from place `logprob_start_len` on (SGLang's name). With `prompt_logprobs`, `max_tokens` may be 0.
    `structured_outputs` holds answers to a JSON schema or another form; an object with its fields will do.
    `logit_bias` is given as an object of biases by token id. `bad_words` are never completed, with or without a blank
    in front; `allowed_token_ids` are the only tokens that may be drawn. The repetition penalty counts prompt and
    answer, the other two the answer alone. `repetition_detection` (`max_pattern_size`, `min_pattern_size`, `min_count`)
    ends an answer that has become a loop. Log-probabilities are the model's own: none of these changes them.
    `logprob_token_ids` asks for those of some tokens, in this order, instead of the most likely ones.
    `truncation` says what becomes of a prompt of more than `truncate_prompt_tokens` tokens, or than the context has
    room for: "error", "skip", "left", "right" or "middle" (`ir/truncation.py`).
    `pooling_params` ask for a vector instead of an answer; what else says how to answer counts for nothing then.
    `lora` names the adapter that the row is computed with, `techniques` those of the engine that it takes (None: all).

    Fields of vLLM that are not obeyed here (`best_of`, `length_penalty` ...) are taken with the value that
    asks for nothing, and refused by name with another. Values do not change: `clone(seed=5)` gives others.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_tokens: int | None = None
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_start_len: int = 0
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    repetition_detection: RepetitionDetection | None = None
    logprob_token_ids: tuple[int, ...] = ()
    truncate_prompt_tokens: int | None = None
    truncation: str | None = None
    pooling_params: PoolingParams | None = None
    lora: str | None = None
    techniques: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        put = self._put
        for each in fields(self):
            if getattr(self, each.name) is None:  # as in a JSON line, null asks for the default
                put(each.name, each.default)
        put("n", check_int("n", self.n, 1, limits.MAX_N))
        put("temperature", check_number("temperature", self.temperature, 0.0, limits.MAX_TEMPERATURE))
        put("top_p", check_number("top_p", self.top_p, 0.0, 1.0, above_low=True))
        put("top_k", max(0, check_int("top_k", self.top_k, -1, limits.MAX_INT)))
        put("min_p", check_number("min_p", self.min_p, 0.0, 1.0))
        if self.seed is not None:
            seed = check_int("seed", self.seed, limits.SEED_MIN, limits.SEED_MAX)
            put("seed", None if seed == -1 else seed)  # as in vLLM
        put("presence_penalty", check_number("presence_penalty", self.presence_penalty, -2.0, 2.0))
        put("frequency_penalty", check_number("frequency_penalty", self.frequency_penalty, -2.0, 2.0))
        name, most = "repetition_penalty", limits.MAX_REPETITION_PENALTY
        put(name, check_number(name, self.repetition_penalty, 0.0, most, above_low=True))
        put("logit_bias", limits.check_logit_bias(self.logit_bias))
        put("bad_words", limits.check_bad_words(self.bad_words))
        if self.allowed_token_ids is not None:
            put("allowed_token_ids", limits.check_allowed_ids(self.allowed_token_ids))
        if self.repetition_detection is not None:
            put("repetition_detection", RepetitionDetection.of(self.repetition_detection))
        put("logprob_token_ids", self._checked_labels())
        put("stop", limits.check_stop(self.stop))
        put("stop_token_ids", limits.check_id_list("stop_token_ids", self.stop_token_ids, limits.MAX_STOP_TOKEN_IDS))
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                put(name, check_int(name, getattr(self, name), 0, limits.MAX_LOGPROBS))
        put("logprob_start_len", check_int("logprob_start_len", self.logprob_start_len, 0, limits.MAX_INT))
        for name in ("ignore_eos", "skip_special_tokens", "include_stop_str_in_output"):
            check_bool(name, getattr(self, name))
        put("structured_outputs", structured_of(self.structured_outputs))
        if self.structured_outputs is not None and self.ignore_eos:
            message = "ignore_eos=true with structured_outputs: what has a form ends with the model's end token"
            refuse("invalid_value", "ignore_eos", message)
        self._check_lengths()
        self._check_prompt()
        without_answer(self)

    @classmethod
    def from_optional(cls, **given: Any) -> SamplingParams:
        """Parameters from fields of which some are None, which asks for the default. Raises InvalidRequest."""
        return cls(**given)

    def clone(self, **changes: Any) -> SamplingParams:
        """The same parameters with some changed. Raises InvalidRequest."""
        return replace(self, **changes)

    def _checked_labels(self) -> tuple[int, ...]:
        ids = limits.check_id_list("logprob_token_ids", self.logprob_token_ids, limits.MAX_LOGPROB_IDS)
        if ids and self.logprobs not in (None, len(ids)):
            message = f"logprobs={self.logprobs}: with {len(ids)} logprob_token_ids it is their number, or left out"
            refuse("invalid_value", "logprobs", message)
        return tuple(dict.fromkeys(ids))

    @property
    def num_logprobs(self) -> int | None:
        """How many log-probabilities are wanted beside that of the chosen token; None: not even that one."""
        return len(self.logprob_token_ids) or self.logprobs

    @property
    def has_penalties(self) -> bool:
        """Whether what may be drawn depends on the tokens that are there."""
        return (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0.0, 0.0, 1.0)

    @property
    def ends_early(self) -> bool:
        """Whether anything but an end token of the model and the limit may end an answer."""
        return bool(self.stop or self.stop_token_ids) or self.repetition_detection is not None

    @property
    def names_tokens(self) -> bool:
        """Whether any field has token ids, or texts to make some of, which `check_ids` has to see."""
        ids = self.stop_token_ids or self.allowed_token_ids or self.logprob_token_ids
        return bool(ids or self.logit_bias or self.bad_words)

    def check_ids(self, width: int) -> None:
        """Raise InvalidRequest for a token id beyond a vocabulary of so many tokens."""
        limits.check_token_ids(self.stop_token_ids, width, "stop_token_ids")
        limits.check_token_ids(self.allowed_token_ids or (), width, "allowed_token_ids")
        limits.check_token_ids(self.logprob_token_ids, width, "logprob_token_ids")
        for token, _ in self.logit_bias:
            if token >= width:
                last = f"this model's token ids are from 0 to {width - 1}"
                refuse("invalid_token_id", "logit_bias", f"logit_bias key {token}: {last}")

    def _check_lengths(self) -> None:
        if self.max_tokens is not None:
            least = 1 if self.prompt_logprobs is None and self.pooling_params is None else 0
            self._put("max_tokens", check_int("max_tokens", self.max_tokens, least, limits.MAX_INT))
        self._put("min_tokens", check_int("min_tokens", self.min_tokens, 0, limits.MAX_INT))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            message = f"min_tokens={self.min_tokens}: must not be more than max_tokens={self.max_tokens}"
            refuse("invalid_value", "min_tokens", message)

    def _check_prompt(self) -> None:
        """Of a number alone the last tokens stay, as in vLLM; "error" alone asks for nothing."""
        limits.check_lora(self.lora)
        self._put("techniques", limits.check_techniques(self.techniques))
        asked = self.truncate_prompt_tokens
        if asked is not None:
            check_int("truncate_prompt_tokens", asked, -1, limits.MAX_INT)
            if asked == 0:
                refuse("invalid_value", "truncate_prompt_tokens", "truncate_prompt_tokens=0: no prompt has no tokens")
        if self.truncation is not None:
            limits.check_choice("truncation", self.truncation, limits.TRUNCATIONS)
        if self.truncation in (None, "error"):
            self._put("truncation", None if asked is None else self.truncation or "left")

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen for everyone else
