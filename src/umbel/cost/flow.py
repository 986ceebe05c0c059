"""How full the KV pool is while a plan is walked on a clock that counts steps: what a rule of admission may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol


class WalkedRule(Protocol):
    """A rule of admission as a walk asks it (sched.policies.admission.Admission has the other half)."""

    retries: bool  # whether time alone may let a sample start that was refused: it is asked again before anything ends

    @staticmethod
    def keeps(limit: int) -> int:
        """Tokens of growth to keep free for a running sample that may generate `limit` tokens (Flow.kept)."""
        ...

    @staticmethod
    def fits(flow: Flow) -> bool:
        """Whether the candidate may start."""
        ...


@dataclass(slots=True)
class Flow:
    """A pool of `pool` pages, sums over the samples that run, and the candidate: `samples` that start as one.

    `progress` counts the tokens that a sample which always ran would have generated. `length` is how long an answer of
    the candidate gets, `limit` how long it may get, `pages` what the prompt adds. `peak()` is the most pages in use
    from now on if the candidate starts, every length being known.
    """

    pool: int
    page_size: int
    rule: type[WalkedRule]
    peak: Callable[[], float]
    progress: float = 0.0
    held: int = 0  # pages of prompts, and of tails that wait for the end of their step
    n_running: int = 0
    leaving: int = 0  # samples that have all their tokens and leave at the end of their step
    begun: float = 0.0  # sum of the progress at which they began
    kept: int = 0  # tokens kept free for them, as the rule says
    full: int = 0  # pages of their tails at full length
    at_limits: int = 0  # pages of their tails at their limits
    samples: int = 0
    length: int = 0
    limit: int = 0
    pages: int = 0
    # Of the tails' pages: how many began at each offset in a page of progress, and pages before that.
    phases: list[int] = field(init=False)
    pages_before: int = 0

    def __post_init__(self) -> None:
        self.phases = [0] * self.page_size

    @property
    def room(self) -> int:
        """Pages that the candidate's prompt leaves for everything else."""
        return self.pool - self.pages

    def used(self) -> int:
        """Pages in use now: prompts, and tails, each of whose pages is taken with its first token."""
        whole, part = divmod(self.progress, self.page_size)
        return self.held + self.n_running * int(whole) + sum(self.phases[: ceil(part)]) - self.pages_before

    def grown(self) -> float:
        """Tokens that running samples have generated after their first ones."""
        return self.n_running * self.progress - self.begun

    def pages_of(self, tokens: int) -> int:
        """Pages of the candidate's tails of so many tokens each."""
        return self.samples * -(-tokens // self.page_size)

    def count(self, samples: int, begun: float, length: int, limit: int) -> None:
        """So many samples have begun to run at the progress `begun`; below 0: they are done."""
        self.n_running += samples
        self.begun += samples * begun
        self.kept += samples * self.rule.keeps(limit)
        self.full += samples * -(-length // self.page_size)
        self.at_limits += samples * -(-limit // self.page_size)
        before, phase = divmod(ceil(begun), self.page_size)  # the step of the first token ends at a whole number
        self.phases[phase] += samples
        self.pages_before += samples * before
