"""Admits a sample when the pages predicted for every future step fit the pool (Past-Future, arXiv 2507.10150).

The past: curves of answer lengths, learned as samples end. The future: sched.policies.forecast. While nothing is known
of a group, its answers are taken to run to their limits, but to no more than survival.UNKNOWN tokens or twice what they
have: full limits would leave the pool idle for rows without `max_tokens`, whose limit is the model's whole context.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from umbel.cost.flow import Flow
from umbel.cost.survival import Survival
from umbel.sched.books import Books, Candidate
from umbel.sched.policies.admission import Admission
from umbel.sched.policies.early_starts import EarlyStarts
from umbel.sched.policies.forecast import Forecast, Runs, Samples

Ints = NDArray[np.int64]

_SMALL = 128  # samples at work for each step of pause after a refusal, though someone has ended
CAUTION = 4.0  # the accepted probability is divided by this for each time that the sample was preempted before


class PastFuture(Admission):
    """Admits a sample while the fullest future step has too few pages with probability `Books.overflow` at most, or
    where it would cost more to let it wait than to preempt it."""

    retries = True  # the later a sample starts, the fewer of those that run are left when it has grown

    def __init__(self, books: Books):
        super().__init__(books)
        self._book = books.lengths
        self._requests = books.requests
        self._overflow = books.overflow
        self._early = EarlyStarts(books)
        self._curves: Survival | None = None
        self._until = 0  # the step in which the curves are read again
        self._step = 0
        self._refused = -self.page_size, -1  # when a sample was refused last: the step, and answers ended by then
        self._at_limits = -1.0  # pages when everyone gets to their limit; -1 when not worked out yet
        self._forecast: Forecast | None = None
        # Candidates are often alike: the group, tokens (in all and in the tip), limit and certainty of the one added
        # last, and its curve.
        self._like: tuple[tuple[int, int, int, int, bool] | None, Samples] = None, Samples.none()

    def begin(self) -> None:
        """A new step begins: results for the last one are no longer valid."""
        self._step += 1
        self._at_limits = -1.0
        self._forecast = None
        self._like = None, self._like[1]

    def renew(self) -> None:
        """Within a step, other samples run than before, or a more urgent one asks: what was refused is forgotten."""
        self.begin()
        self._step -= 1
        self._refused = -self.page_size, -1

    def admits(self, candidate: Candidate) -> bool:
        """Whether the predicted peak, this sample included, fits."""
        if self._pauses() or not self.fits_now(candidate):
            return False
        new = [n for n in candidate.path if self.kv.users[n] == 0]
        if self._forecast is None and self._all_fit(candidate, new):
            return True
        if self._forecast is None:
            self._forecast = self._foresee(candidate)
        else:
            self._add(candidate, new)
        z = NormalDist().inv_cdf(1 - self._overflow / CAUTION**candidate.losses)
        if self._forecast.peak(z) <= self.kv.pool.n_pages + 1e-6 or self._early.pays(candidate):
            return True
        self._refused = self._step, self._book.ended
        return False

    @staticmethod
    def fits(flow: Flow) -> bool:
        """In a walk, which knows the lengths: whether the fullest step to come fits the pool."""
        if flow.held + flow.full + flow.pages_of(flow.length) <= flow.room:
            return True  # even if all grow to their full length at once
        return flow.used() + flow.samples <= flow.room and flow.peak() <= flow.pool

    def _pauses(self) -> bool:
        """Whether it is too early to ask again: no sample has ended since, or so few that nothing has changed."""
        since, ended = self._refused
        several = min(self.page_size // 4, self.seqs.n_running // _SMALL)
        return self._step - since < (self.page_size if ended == self._book.ended else several)

    def _all_fit(self, candidate: Candidate, new: list[int]) -> bool:
        """The short way: whether everyone, this one included, could get to their limit."""
        if self._at_limits < 0:
            slots, pool = np.flatnonzero(self.seqs.running), self.kv.pool
            prompts = pool.used - self.kv.idle.pages - int(self.kv.n_pages[self.seqs.tip[slots]].sum())
            tips = self.seqs.max_out[slots] - 1 - self._shared(slots)
            self._at_limits = prompts + int((-(-tips // self.page_size)).sum())
        self._at_limits += self._pages_of(new) + self.pages_for(candidate.limit - 1 - candidate.shared)
        return self._at_limits <= self.kv.pool.n_pages

    def _foresee(self, candidate: Candidate) -> Forecast:
        """The forecast for all that run, and the candidate."""
        seqs, kv = self.seqs, self.kv
        slots = np.flatnonzero(seqs.running)
        above = np.append(kv.parent[seqs.tip[slots]], candidate.path[-1])
        order = np.argsort(kv.labels.low[above], kind="stable")
        rows = np.append(seqs.row[slots], candidate.row)[order]
        n_out = np.append(seqs.n_out[slots], candidate.n_out)[order]
        tip = n_out - np.append(self._shared(slots), candidate.shared)[order]
        limit = np.append(seqs.max_out[slots], candidate.limit)[order]
        nodes = np.union1d(kv.runs_in_use(), np.array(candidate.path, np.int64))
        first, stop = kv.labels.within(nodes, above[order])
        # A row that waits for a node and does not read it now will read it later.
        awaited = np.fromiter(map(kv.waiting.__getitem__, nodes.tolist()), np.int64, len(nodes)) > stop - first
        runs = Runs(kv.sizes(nodes[~awaited]), first[~awaited], stop[~awaited])
        samples = self._samples(rows, n_out, tip, limit)
        assert self._curves is not None
        return Forecast(samples, runs, int(kv.sizes(nodes[awaited]).sum()), self._curves, self.page_size)

    def _add(self, candidate: Candidate, new: list[int]) -> None:
        """One more candidate in the same step. Others wait for the nodes that are in use: at least this one did."""
        assert self._forecast is not None
        curves = self._curves
        key = (
            int(self._book.groups[candidate.row]),
            candidate.n_out,
            candidate.n_out - candidate.shared,
            candidate.limit,
            bool(self._requests.certain[candidate.row]),
        )
        if key != self._like[0]:
            one = (np.array([v]) for v in (candidate.row, *key[1:4]))
            self._like = key, self._samples(*one)
        if curves is not self._curves:  # its group was not in the table
            self._forecast = self._foresee(candidate)
            return
        awaited = [n for n in new if self.kv.waiting[n] > 1]
        for_good = self._pages_of(awaited)
        self._forecast.add(self._like[1], self._pages_of(new) - for_good, for_good)

    def _pages_of(self, nodes: list[int]) -> int:
        """Pages that some runs need for all their tokens, together."""
        length = self.kv.length.item
        return sum(self.pages_for(length(node)) for node in nodes)

    def _shared(self, slots: Ints) -> Ints:
        """Of the tokens that samples have generated, how many stand in runs that they share as forks (`[samples]`)."""
        return np.asarray(self.kv.start[self.seqs.tip[slots]] - self.seqs.prompt_len[slots])

    def _samples(self, rows: Ints, n_out: Ints, tip: Ints, limit: Ints) -> Samples:
        """Samples with what the curves say of them."""
        group, curves = self._read_curves(self._book.groups[rows])
        bound = np.where(self._requests.certain[rows], limit, curves.bound(group, n_out, limit))
        width = curves.share.shape[1]
        first, last = (curves.share[group, np.minimum(n, width - 1)] for n in (n_out, bound - 1))
        return Samples(n_out, tip, bound, group, self._requests.certain[rows] | (first == last))

    def _read_curves(self, groups: Ints) -> tuple[Ints, Survival]:
        """Where the groups are in a table of curves that is not older than a page's worth of steps."""
        at = None
        if self._curves is not None and self._step < self._until:
            at = self._curves.find(groups)
        if at is None or self._curves is None:
            started = np.flatnonzero(self.seqs.rank >= 0)
            started = started[~self._requests.certain[self.seqs.row[started]]]
            of = self._book.groups[self.seqs.row[started]]
            self._curves = Survival.of(self._book, np.union1d(of, groups), of, self.seqs.n_out[started])
            self._until = self._step + max(self.page_size, 2 * len(self._curves.groups))
            at = np.searchsorted(self._curves.groups, groups)
        return at, self._curves
