"""What an index of answers takes: `python -m bench.answer_index [--tokens 1000000]`.

Prints bytes a token (the most at any size), microseconds a token to put answers in, and microseconds a row to ask for
eight tokens: processor time, the best of many calls. Answers are random ones, the worst case, and alike ones: the same
64 tokens but for four.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from umbel.spec.answer_index import WIDTH, AnswerIndex

Ints = NDArray[np.int64]

LENGTH, LOT = 64, 16  # tokens of an answer, answers put in together
ROWS, MOST = (1, 8, 64, 256, 1000), 8


def random_answers(draw: np.random.Generator) -> Ints:
    """Answers that have nothing in common (`[LOT, LENGTH]`)."""
    return draw.integers(0, 50_000, (LOT, LENGTH))


def alike_answers(draw: np.random.Generator) -> Ints:
    """Answers that differ in four tokens (`[LOT, LENGTH]`)."""
    answers = np.tile(np.arange(LENGTH), (LOT, 1))
    answers[:, ::16] = draw.integers(0, 5000, (LOT, LENGTH // 16))
    return answers


def fill(answers: Callable[[np.random.Generator], Ints], n_tokens: int) -> tuple[AnswerIndex, float, float]:
    """An index of so many tokens, the most bytes a token that it ever took, and the seconds."""
    index, draw, most, seconds = AnswerIndex(2 * n_tokens), np.random.default_rng(0), 0.0, 0.0
    scopes, begin = np.zeros(LOT, np.int64), np.arange(LOT + 1) * LENGTH
    while index.n_tokens < n_tokens:
        tokens = answers(draw).ravel()
        began = time.process_time()
        index.add(scopes, tokens, begin)
        seconds += time.process_time() - began
        if index.n_tokens > 10_000:
            most = max(most, index.n_bytes / index.n_tokens)
    return index, most, seconds


def ask(index: AnswerIndex, rows: int) -> float:
    """Seconds to ask for so many rows."""
    tails, scopes = np.random.default_rng(1).integers(0, LENGTH, (rows, WIDTH)), np.zeros(rows, np.int64)
    best = float("inf")
    for _ in range(1000):
        began = time.perf_counter()
        index.propose(scopes, tails, MOST)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    n_tokens = parser.parse_args().tokens
    for name, answers in (("random", random_answers), ("alike", alike_answers)):
        index, most, seconds = fill(answers, n_tokens)
        share = index.contexts.left_out / max(index.contexts.size, 1)
        print(f"{name}: {most:.1f} bytes a token at most, {index.contexts.size:,} contexts, {share:.1%} left out")
        print(f"  put in: {1e6 * seconds / index.n_tokens:.2f} us a token")
        for rows in ROWS:
            print(f"  ask, {rows:5,} rows: {1e6 * ask(index, rows) / rows:6.2f} us a row")


if __name__ == "__main__":
    main()
