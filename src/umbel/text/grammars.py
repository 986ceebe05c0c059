"""Grammars of answers, followed token by token: compiled for one tokenizer by llguidance, each of them once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from threading import Lock, Thread
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.grammars import brief, library, limits, on_deep_stack
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import Masks

MOST_KEPT = 1_024  # compiled grammars, of up to some hundred kB each


class Grammars:
    """What llguidance needs of a tokenizer: the bytes of the ids below `width`, the `special` ones among them, which no
    grammar takes for text, those that `end` a text, and what turns a text into ids."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        special: Sequence[int],
        ends: Sequence[int],
        encode: Callable[[str], list[int]],
    ):
        ll = library()
        wrapper = ll.TokenizerWrapper(_Vocabulary(pieces, special, ends[0], encode))
        self._tokenizer = ll.LLTokenizer(wrapper, n_vocab=len(pieces), eos_token=list(ends))
        self._ends = frozenset(ends)
        self._compiled: OrderedDict[StructuredOutputsParams, _Compiled] = OrderedDict()
        self._lock = Lock()

    def start(self, asked: StructuredOutputsParams) -> Any:
        """A matcher (llguidance's LLMatcher) at the beginning of an answer. Raises InvalidRequest for what cannot be
        followed."""
        return self._kept(asked).get().deep_copy()

    def prepare(self, asked: Iterable[StructuredOutputsParams]) -> Thread:
        """Compile forms in another thread, which is returned: who wants one that is not there yet compiles it. Of very
        many the first are, as no more are kept."""
        forms = [self._kept(one) for one in islice(asked, MOST_KEPT)]
        thread = Thread(target=_compile_all, args=(forms,), name="umbel-forms", daemon=True)
        thread.start()
        return thread

    def _kept(self, asked: StructuredOutputsParams) -> _Compiled:
        with self._lock:
            if asked in self._compiled:
                self._compiled.move_to_end(asked)
            else:
                self._compiled[asked] = _Compiled(lambda: self._compile(asked))
                if len(self._compiled) > MOST_KEPT:
                    self._compiled.popitem(last=False)
            return self._compiled[asked]

    def advance(self, state: Any, tokens: Sequence[int]) -> str | None:
        """An answer goes on with these tokens; returns why it cannot be followed further."""
        return None if not tokens or state.consume_tokens(list(tokens)) else brief(state.get_error())

    def forced(self, state: Any, most: int) -> list[int]:
        """The next tokens that are certain, as far as each is the only one that llguidance allows: of those that it
        finds together only the first is, for sure, as what follows may be spelled in other tokens from there on."""
        found = list[int]()
        while len(found) < most and (certain := state.compute_ff_tokens()):
            if certain[0] in self._ends or not state.consume_token(certain[0]):
                break
            found.append(certain[0])
        return found

    def back(self, state: Any, tokens: int) -> None:
        """The last tokens do not come."""
        state.rollback(tokens)

    def fill(self, states: Sequence[tuple[Any, int]], masks: Masks) -> Mapping[int, str]:
        """Masks of all states at once, without Python in between (llguidance's executor)."""
        self._executor.unsafe_compute_mask_ptr(
            list(states), masks.ctypes.data, masks.itemsize * masks.shape[1], len(masks)
        )
        return {place: brief(state.get_error()) for state, place in states if state.is_error()}

    @cached_property
    def _executor(self) -> Any:
        return library().LLExecutor()

    def _compile(self, asked: StructuredOutputsParams) -> Any:
        ll = library()
        matcher = on_deep_stack(
            lambda: ll.LLMatcher(self._tokenizer, asked.definition, log_level=0, limits=limits()),
        )
        if not matcher.is_error():
            matcher.compute_bitmask()  # what is known of the first token is copied with it
        if matcher.is_error():
            raise InvalidRequest("invalid_grammar", f"structured_outputs: {brief(matcher.get_error())}")
        return matcher


class _Compiled:
    """A form that is compiled by who wants it first."""

    def __init__(self, compile: Callable[[], Any]):
        self._compile, self._lock, self._found = compile, Lock(), None

    def get(self) -> Any:
        """A matcher at the beginning of an answer, to be copied. Raises InvalidRequest where there is none."""
        with self._lock:
            if self._found is None:
                self._found = self._compile()
            return self._found


def _compile_all(forms: Sequence[_Compiled]) -> None:
    for one in forms:
        with suppress(InvalidRequest):  # said again to who wants it
            one.get()


class _Vocabulary:
    """A tokenizer as llguidance takes those that are not its own."""

    def __init__(self, pieces: Sequence[bytes], special: Sequence[int], end: int, encode: Callable[[str], list[int]]):
        self.tokens, self.special_token_ids = pieces, list(special)
        self.eos_token_id, self.bos_token_id = end, None
        self._encode = encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode())
