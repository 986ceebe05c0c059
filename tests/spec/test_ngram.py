"""Prompt lookup: what it proposes stood behind the same tokens before, and it finds what a search through all finds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from umbel.spec.base import Setting
from umbel.spec.ngram import NGrams


def one(prompt: list[int], *answers: list[int]) -> NGrams:
    """A drafter that knows one sample, of rank 4."""
    drafter = NGrams(Setting())
    drafter.start(4, 0, 0, np.array(prompt, np.int32))
    for answer in answers:
        drafter.extend(np.array([4]), np.array(answer, np.int32), np.array([0, len(answer)]))
    return drafter


def proposed(drafter: NGrams, most: int) -> list[int]:
    return drafter.propose(np.array([4]), np.array([most])).tokens.tolist()


@pytest.mark.parametrize(
    ("prompt", "answer", "wanted"),
    [
        ([1, 2, 3, 4, 5, 6], [2, 3], [4, 5, 6, 2]),  # a pair of the prompt
        ([1, 2, 3, 4, 9, 2, 3, 5, 7], [1, 2, 3], [4, 9, 2, 3]),  # the triple, though the pair came later
        ([1, 2, 3, 4, 9, 2, 3, 5, 7, 7], [6, 2, 3], [5, 7, 7, 6]),  # the later of two pairs
        ([8], [1, 2, 1, 2], [1, 2, 1, 2]),  # of the answer, which repeats itself
        ([8, 8, 8], [8], [8, 8, 8, 8]),
        ([1, 2, 3], [4], []),
        ([3], [4, 3], []),  # one token alone says too little
        ([0], [0], []),  # nothing stands before the first token
    ],
)
def test_what_is_proposed(prompt: list[int], answer: list[int], wanted: list[int]) -> None:
    """The same when tokens come one by one."""
    assert proposed(one(prompt, answer), 4) == wanted
    assert proposed(one(prompt, *([token] for token in answer)), 4) == wanted
    assert proposed(one(prompt, answer), 1) == wanted[:1]


def naive(text: list[int], most: int) -> list[int]:
    """The latest place behind the last three tokens, else the last two, by looking at all."""
    for order in (3, 2):
        for at in range(len(text) - 1, order - 1, -1):
            if text[at - order : at] == text[-order:]:
                return [text[at + i % (len(text) - at)] for i in range(most)]
    return []


def test_it_finds_what_a_search_through_all_finds() -> None:
    """Nearly always, as places in its tables may be taken; what it proposes otherwise stood there once too."""
    rng, same, tries = random.Random(0), 0, 0
    for width in (4, 30, 150_000):
        ids = [rng.randrange(width) for _ in range(12)]
        prompt = [rng.choice(ids) for _ in range(rng.randrange(1, 200))]
        drafter, text = one(prompt), list(prompt)
        for _ in range(300):
            more = [rng.choice(ids) for _ in range(rng.randint(1, 4))]
            drafter.extend(np.array([4]), np.array(more, np.int32), np.array([0, len(more)]))
            text += more
            found = proposed(drafter, 5)
            same, tries = same + (found == naive(text, 5)), tries + 1
            follows = [text[at : at + 1] for at in range(2, len(text)) if text[at - 2 : at] == text[-2:]]
            assert found[:1] in follows or not found
    assert tries == 900 and same > 0.8 * tries
