"""Canonical workloads and a machine of round numbers, for tests of plans."""

from __future__ import annotations

from collections.abc import Callable

from umbel.cost.machine import Machine
from umbel.ir.params import SamplingParams
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload

MACHINE = Machine("test", 1e11, 2e11, 1e10, 2 * 10**9, 0.4, 0.0, 1e-4, (512, 1024, 2048), ("float32",), "round numbers")
SPEC = ModelSpec("llama", 1000, 64, 2, 4, 2, 16, 128, 4096, 1e-5, 1e4, tied_embeddings=True)


def run(first: int, length: int) -> list[int]:
    """`length` tokens that no other `first` gives."""
    return [(first * 7919 + i * 31) % 997 for i in range(length)]


def groups(n_groups: int, rows: int, shared: int, own: int) -> list[list[int]]:
    return [[g, *run(g, shared - 1), g, r, *run(r, own - 2)] for g in range(n_groups) for r in range(rows)]


def of(prompts: list[list[int]], max_tokens: int | None = 16, n: int = 1) -> Workload:
    return Workload.of(prompts, SamplingParams(max_tokens=max_tokens, n=n))


def three_levels() -> Workload:
    head = run(3, 400)
    return of([[*head, a, *run(a, 100), b, *run(b, 30), c, 9] for a in range(3) for b in range(3) for c in range(4)])


def conversations() -> Workload:
    """Each turn's prompt begins with the whole turn before it."""
    return of([run(c, 60 * turn) for c in range(5) for turn in range(1, 8)], max_tokens=40)


def deep_chain() -> Workload:
    return of([run(1, 3 * i) for i in range(1, 21)])


CANONICAL: dict[str, Callable[[], Workload]] = {
    "empty": lambda: of([]),
    "one_row": lambda: of([run(1, 30)]),
    "unrelated": lambda: of([[i, *run(i, 50)] for i in range(40)]),
    "groups": lambda: of(groups(4, 32, 512, 32), max_tokens=4),
    "many_groups": lambda: of(groups(30, 5, 128, 20)),
    "three_levels": three_levels,
    "conversations": conversations,
    "duplicates": lambda: of([run(i % 3, 64) for i in range(60)]),
    "samples": lambda: of(groups(1, 6, 200, 40), max_tokens=64, n=8),
    "no_limit": lambda: of(groups(2, 10, 100, 30), max_tokens=None),
    "deep_chain": deep_chain,
    "twins": lambda: Workload.of([run(i % 4, 48) for i in range(40)], SamplingParams(max_tokens=24, temperature=0.0)),
}
