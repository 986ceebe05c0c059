"""What forms of answers take, found before any is run: seconds to compile them, and tokens that are certain on the way
through one, on a walk that takes what comes."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from umbel.errors import InvalidRequest
from umbel.ir.structured import StructuredOutputsParams
from umbel.ir.token_masks import Masks, n_words, unpacked
from umbel.text.masker import Masker

WALKED = 24  # forms; of more, some that lie evenly among them
LONGEST = 400  # tokens of a walk
PATIENCE = 6  # tokens of free text behind which a walk leaves it where it can
_WAYS = 64  # tokens that may come next, above which text is free


@dataclass(frozen=True, slots=True)
class FormCosts:
    """What some forms take: `seconds` to compile all. How many were `walked`, the `tokens` of these walks, and those of
    them that were certain (`forced`)."""

    seconds: float
    walked: int
    tokens: int
    forced: int


def survey(masker: Masker, forms: Sequence[StructuredOutputsParams], pieces: Sequence[bytes], end: int) -> FormCosts:
    """Compile forms and walk through some. `pieces` are the bytes of the tokens, of which `end` ends an answer. A form
    that shows only now that it cannot be followed is left out."""
    begin, states = time.perf_counter(), list[Any]()
    for one in forms:
        try:
            states.append(masker.start(one))
        except InvalidRequest:
            continue
    seconds = time.perf_counter() - begin
    chosen = states[:: max(1, -(-len(states) // WALKED))]
    walk, rng = _FormWalk(masker, pieces, end), random.Random(0)
    found = [walk.through(state, rng) for state in chosen]
    return FormCosts(seconds, len(found), sum(tokens for tokens, _ in found), sum(forced for _, forced in found))


class _FormWalk:
    """Takes any token that may come, the end as soon as it may, and out of free text what closes it."""

    def __init__(self, masker: Masker, pieces: Sequence[bytes], end: int):
        self._masker, self._width, self._end = masker, len(pieces), end
        self._closing = np.array([piece[:1] in (b'"', b"}", b"]", b",", b"\n") for piece in pieces])

    def through(self, state: Any, rng: random.Random) -> tuple[int, int]:
        """Tokens of a walk, and those that were certain."""
        tokens = forced = free = 0
        masks: Masks = np.zeros((1, n_words(self._width)), np.uint32)
        while tokens < LONGEST:
            certain = len(self._masker.forced(state, LONGEST - tokens))
            tokens, forced = tokens + certain, forced + certain
            masks[:] = 0
            if self._masker.fill([(state, 0)], masks):
                break
            fine = unpacked(masks[0], self._width)
            if not fine.any() or fine[self._end]:
                break
            free = free + 1 if fine.sum() > _WAYS else 0
            ways = np.flatnonzero(fine & self._closing) if free > PATIENCE else np.flatnonzero(fine)
            ways = ways if len(ways) else np.flatnonzero(fine)
            if self._masker.advance(state, [int(rng.choice(ways))]) is not None:
                break
            tokens += 1
        return tokens, forced
