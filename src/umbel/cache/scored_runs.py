"""The log-probabilities of prompt tokens, by the runs that they stand in: each is computed once for all its readers.

The logits of a token score the one behind it: that of a run's last token, the first tokens of all runs below it. Rows
that want scores are added together with what they share, so that a step which computes a token for the first time
knows all that its logits are wanted for. Runs that are computed again, as they had to be evicted, have their scores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.cache.summed_runs import SummedRuns
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.scores import Scores, TokenScores

Ints = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class ScoredRun:
    """The tokens of a run at positions `first` to `end`, of which scores are wanted; `tokens` are all from `start` on.

    `top`: how many of the most likely ids come with each. `above`: the run above, where that has anything to do with
    scores; `below`: the runs below whose first tokens are wanted.
    """

    start: int
    end: int
    tokens: NDArray[np.int32]
    above: ScoredRun | None
    first: int
    top: int = 0
    below: list[ScoredRun] = field(default_factory=list)
    _found: TokenScores | None = None
    _told: dict[int, tuple[TokenLogprobs, ...]] = field(default_factory=dict)  # by `top`

    def want(self, first: int, top: int) -> None:
        """Scores are wanted from position `first` on, with `top` others each."""
        self.top = max(self.top, top)
        begin = min(self.first, max(first, self.start))
        if begin == self.start < self.first and self.above is not None:
            self.above.below.append(self)
        self.first = begin

    def put(self, low: int, high: int, found: TokenScores, begin: int) -> None:
        """The scores of the tokens at positions `low` to `high` stand in `found`, from its entry `begin` on."""
        if self._found is None:
            size = self.end - self.first
            ids, top = np.full((size, self.top), -1), np.full((size, self.top), np.nan)
            self._found = TokenScores(np.full(size, np.nan), ids, top)
        mine, theirs = slice(low - self.first, high - self.first), slice(begin, begin + high - low)
        self._found.logprobs[mine] = found.logprobs[theirs]
        self._found.top_ids[mine] = found.top_ids[theirs, : self.top]
        self._found.top_logprobs[mine] = found.top_logprobs[theirs, : self.top]

    def read(self, first: int, top: int) -> tuple[TokenLogprobs, ...]:
        """The scores from position `first` on, with `top` others each; all readers get the same objects."""
        if max(first, self.start) >= self.end:
            return ()
        if top not in self._told:
            self._told[top] = tuple(self._entries(top))
        return self._told[top][max(first - self.first, 0) :]

    def _entries(self, top: int) -> Iterator[TokenLogprobs]:
        found = self._found
        assert found is not None
        tokens = self.tokens[self.first - self.start :].tolist()
        ids, values = found.top_ids[:, :top].tolist(), found.top_logprobs[:, :top].tolist()
        for token, logprob, *best in zip(tokens, found.logprobs.tolist(), ids, values, strict=True):
            yield TokenLogprobs(token, logprob, tuple(zip(*best, strict=True)))


@dataclass(frozen=True, slots=True)
class Reader:
    """A row's wish: scores of its prompt's tokens from place `first` on, with `top` others each; `leaf`: where it
    ends."""

    leaf: ScoredRun
    first: int
    top: int


class ScoredRuns:
    """Which runs of a KV tree have scores wanted, what steps are to score, and what rows get in the end.

    `summed`: the same for means. `open` are the runs by their nodes, while they have tokens that were never computed:
    empty where nothing is wanted.
    """

    def __init__(self) -> None:
        self.open: dict[int, ScoredRun] = {}
        self.summed = SummedRuns()
        self._readers: dict[int, Reader] = {}  # by row
        self._asked: deque[list[tuple[ScoredRun, int, int]]] = deque()  # of steps under way: positions of runs

    def add(self, row: int, prompt: NDArray[np.int32], path: list[tuple[int, int]], first: int, top: int) -> None:
        """A row wants the scores of its prompt's tokens from place `first` (at least 1) on, with `top` others each.
        `path`: the nodes that hold it, root first, and where each begins."""
        ends = [*(start for _, start in path[1:]), len(prompt)]
        run = None
        for (node, start), end in zip(path, ends, strict=True):
            if end < min(first, len(prompt)):
                continue  # its tokens have nothing to do with what is wanted
            known = self.open.get(node)
            if known is None:
                known = self.open[node] = ScoredRun(start, end, prompt[start:end].copy(), run, end)
            known.above = known.above or run
            if first < end:
                known.want(first, top)
            run = known
        assert run is not None
        self._readers[row] = Reader(run, first, top)

    def drop_node(self, node: int) -> None:
        """A node is gone."""
        self.open.pop(node, None)
        self.summed.drop_node(node)

    def share(self, row: int, rows: list[int]) -> None:
        """Rows with the same prompt want what another does."""
        if row in self._readers:
            self._readers.update(dict.fromkeys(rows, self._readers[row]))

    def drop_row(self, row: int) -> None:
        """A row is not wanted any more."""
        self._readers.pop(row, None)
        self.summed.drop_row(row)

    def take(self, row: int) -> tuple[TokenLogprobs | None, ...] | None:
        """What a row gets whose prompt was computed: an entry for each of its tokens, None for those before the first
        that is wanted. None for a row that wants nothing."""
        reader = self._readers.pop(row, None)
        if reader is None:
            return None
        runs, run = [], reader.leaf
        while run.start >= reader.first and run.above is not None:
            runs.append(run)
            run = run.above
        found = [score for each in (run, *reversed(runs)) for score in each.read(reader.first, reader.top)]
        return (*[None] * (reader.leaf.end - len(found)), *found)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def ask(self, counts: Mapping[int, int], held: Ints, seen: Ints, row_of: Callable[[int], int]) -> Scores | None:
        """What a step is to score that computes so many tokens (`counts`) of some nodes, which have `held` tokens of
        which `seen` were computed before (`[nodes]`). `row_of`: the step's row of the first that a node computes."""
        at, targets, top = [], [], 0
        for node, run, low, high in self._wanted(counts, held, seen):
            begin = row_of(node) + low - 1 - self.open[node].start - held.item(node)
            at.append(np.arange(begin, begin + high - low))
            targets.append(run.tokens[low - run.start : high - run.start])
            top = max(top, run.top)
        return Scores(np.concatenate(at), np.concatenate(targets).astype(np.int64), top) if at else None

    def begin(self, counts: Mapping[int, int], held: Ints, seen: Ints) -> None:
        """That step is under way."""
        asked = [(run, low, high) for _, run, low, high in self._wanted(counts, held, seen)]
        if asked:
            self._asked.append(asked)
        for node, count in counts.items():
            run = self.open.get(node)
            if run is not None and held.item(node) + count == run.end - run.start:
                del self.open[node]
                run.below.clear()

    def land(self, found: TokenScores) -> None:
        """The eldest step under way that scores anything is done."""
        begin = 0
        for run, low, high in self._asked.popleft():
            run.put(low, high, found, begin)
            begin += high - low

    def _wanted(self, counts: Mapping[int, int], held: Ints, seen: Ints) -> Iterator[tuple[int, ScoredRun, int, int]]:
        """Positions of runs that the step can score, and the node whose logits do: tokens that it computes for the
        first time."""
        for node, count in counts.items():
            run = self.open.get(node)
            if run is None:
                continue
            done = run.start + held.item(node) + count
            low = run.start + max(held.item(node), seen.item(node)) + 1  # behind the first new token
            high = min(done + 1, run.end)
            if max(low, run.first) < high:
                yield node, run, max(low, run.first), high
            if low <= done == run.end:
                for child in run.below:
                    yield node, child, child.start, child.start + 1
