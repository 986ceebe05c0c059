"""Predicts the pages that the samples at work will hold at every future step: the future of Past-Future.

LightLLM (arXiv 2507.10150) draws lengths at random and sweeps over the ends; here the sum over samples of (probability
to go on) x (pages then) is taken itself, with its standard deviation, on a grid of future steps in whole pages. Samples
whose end is certain are swept exactly, end by end. A shared run counts once, until its last reader ends; for good where
others still wait for it.

Future steps are counted from the one being decided: in step `u` a sample that has generated n tokens holds n + u of
them, and it is at work in that step if its answer is longer than n + u.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.survival import Survival

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NEAR = 4  # pages of steps that the grid looks at closely
_FURTHER = 0.25  # beyond them, each step it looks at is by so much further off than the one before
_MANY = 256
_SURE = 1e-22  # log of it stands for the log of nothing


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples at work (`[samples]`), in the order of their leaves.

    Tokens generated, those of them that stand in its tip (of a fork, others stand in runs that it shares), the longest
    the answer can get, the group's place in the table of curves, and whether it surely gets as long as that.
    """

    n_out: Ints
    tip: Ints
    bound: Ints
    group: Ints
    sure: NDArray[np.bool_]

    @classmethod
    def none(cls) -> Samples:
        """No samples."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, none, none > 0)

    def ends(self) -> Ints:
        """The last future step in which each can be at work."""
        return self.bound - self.n_out - 1

    def alive(self, steps: Ints, curves: Survival) -> Floats:
        """Probability of being at work in `steps` (`[samples, steps]`); ends between two of them are put off."""
        share = curves.share
        now = share[self.group, np.minimum(self.n_out, share.shape[1] - 1)]
        at = np.minimum(self.n_out[:, None] + steps, share.shape[1] - 1)
        at += (self.group * share.shape[1])[:, None]
        going = share.ravel()[at] / np.where(now > 0, now, 1.0)[:, None]
        going[self.sure | (now <= 0)] = 1.0  # one that has outlived all others goes on to its bound
        return np.asarray(going * (self.ends()[:, None] > np.append(-1, steps[:-1])))


@dataclass(frozen=True, slots=True)
class Runs:
    """Prompt nodes in use (`[nodes]`): their pages, and their readers as a range of the samples (first, stop)."""

    pages: Ints
    first: Ints
    stop: Ints

    def split(self, n_samples: int) -> tuple[Floats, Runs]:
        """Pages that each sample reads alone, and the runs of several; those with the same readers are one."""
        alone = self.stop - self.first == 1
        own = np.bincount(self.first[alone], self.pages[alone], n_samples).astype(float)
        key, same = np.unique(self.first[~alone] * (n_samples + 1) + self.stop[~alone], return_inverse=True)
        pages = np.bincount(same, self.pages[~alone], len(key))
        return own, Runs(pages.astype(np.int64), key // (n_samples + 1), key % (n_samples + 1))


class Forecast:
    """Pages over future steps: some for good, the others with a mean and a variance.

    The variance has two parts: samples end independently, and a curve that rests on few answers is wrong for all
    samples of its group together.
    """

    def __init__(self, samples: Samples, runs: Runs, for_good: int, curves: Survival, page_size: int):
        self._page = page_size
        self._curves = curves
        self._for_good = for_good
        self._added: Samples | None = None  # the one added last, and what was worked out for it
        self._alive, self._wrong, self._tail = np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
        own, shared = runs.split(len(samples.n_out))
        if samples.sure.all():
            self.steps = np.unique(samples.ends())
            self._mean = _sweep(samples, own, self.steps, page_size) + _releases(samples.ends(), shared, self.steps)
            self._variance = np.zeros(len(self.steps))
            self._common = np.zeros((len(curves.groups), len(self.steps)))
        else:
            self.steps = _grid(int(samples.ends().max()), samples.tip, page_size)
            self._sum(samples, own, shared)

    def peak(self, z: float) -> float:
        """The most pages held in any step: the mean, and `z` standard deviations more."""
        variance = self._variance + (self._common**2).sum(0)
        return self._for_good + float((self._mean + z * np.sqrt(variance)).max(initial=0.0))

    def add(self, sample: Samples, own: int, for_good: int) -> None:
        """One sample more: with the pages that only it reads, and those that others wait for too."""
        end = int(sample.ends()[0])
        if end > self.steps[-1]:
            self.steps = np.append(self.steps, end)
            self._mean, self._variance = np.append(self._mean, 0.0), np.append(self._variance, 0.0)
            self._common = np.pad(self._common, ((0, 0), (0, 1)))
        if sample is not self._added or len(self._alive) != len(self.steps):
            self._added, self._alive = sample, sample.alive(self.steps, self._curves)[0]
            self._tail = -(-(sample.tip + self.steps) // self._page)
            self._wrong = np.sqrt(self._alive * (1 - self._alive) / self._curves.answers[sample.group[0]])
        pages = own + self._tail
        expected = self._alive * pages
        self._for_good += for_good
        self._mean += expected
        self._variance += expected * (pages - expected)
        self._common[sample.group[0]] += self._wrong * pages

    def _sum(self, samples: Samples, own: Floats, shared: Runs) -> None:
        alive = samples.alive(self.steps, self._curves)
        pages = own[:, None] - (-(samples.tip[:, None] + self.steps) // self._page)
        expected = alive * pages
        self._mean = expected.sum(0)
        self._variance = (expected * (pages - expected)).sum(0)
        wrong = np.sqrt(alive * (1 - alive) / self._curves.answers[samples.group][:, None]) * pages
        self._common = _by_group(wrong, samples.group, len(self._curves.groups))
        if len(shared.pages):
            none = np.log(np.maximum(1 - alive, _SURE)).cumsum(0)
            none = np.concatenate([np.zeros((1, len(self.steps))), none])
            held = 1 - np.exp(none[shared.stop] - none[shared.first])
            self._mean += shared.pages @ held
            self._variance += shared.pages**2 @ (held * (1 - held))


def _grid(last: int, tip: Ints, page: int) -> Ints:
    """Steps to look at: a few in each of the next pages, then fewer and fewer, up to the last step.

    Most of them are steps in which as many samples as possible have just begun a page. Of many samples the sum is
    smooth, so that half as many steps do.
    """
    coarse = len(tip) >= _MANY
    most = int(np.bincount(tip % page, minlength=page).argmax())
    begin, part = (1 - most) % page, max(page // (2 if coarse else 4), 1)
    steps = [0, *range(begin % part or part, _NEAR * page, part)]
    pages = float(_NEAR)
    while steps[-1] < last:
        steps.append(begin + int(pages) * page)
        pages = max(pages + 1, pages * (1 + 2 * _FURTHER if coarse else 1 + _FURTHER))
    return np.array(steps, np.int64)


def _by_group(values: Floats, group: Ints, n_groups: int) -> Floats:
    """Sums of rows of the same group (`[groups, steps]`)."""
    if n_groups == 1:
        return np.asarray(values.sum(0, keepdims=True))
    total = np.zeros((n_groups, values.shape[1]))
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    total[group[order][first]] = np.add.reduceat(values[order], first, axis=0)
    return total


def _sweep(samples: Samples, own: Floats, steps: Ints, page: int) -> Floats:
    """Pages of samples with certain ends, in `steps` (`[steps]`): what each reads alone, and its tip."""
    order = np.argsort(-samples.ends())
    ends, tip = samples.ends()[order], samples.tip[order]
    alive = np.searchsorted(-ends, -steps, "right")  # the first so many samples
    base = np.append(0.0, np.cumsum(own[order] + tip // page))
    # A tip of q pages and r tokens has q + (r > 0) pages; after more tokens, r + (more % page) may fill another one.
    over = np.zeros((len(ends) + 1, page + 2), np.int64)  # of the first so many samples, those with r >= column
    over[1:] = np.cumsum((tip % page)[:, None] >= np.arange(page + 2), axis=0)
    more = steps % page
    begun = over[alive, np.maximum(1 - more, 0)]
    return np.asarray(base[alive] + alive * (steps // page) + begun + over[alive, page + 1 - more])


def _releases(ends: Ints, shared: Runs, steps: Ints) -> Floats:
    """Pages of shared runs in `steps`: each is held until the last of its readers ends."""
    if not len(shared.pages):
        return np.zeros(len(steps))
    last = np.maximum.reduceat(np.append(ends, 0), np.stack([shared.first, shared.stop], 1).ravel())[::2]
    order = np.argsort(-last)
    held = np.append(0, np.cumsum(shared.pages[order]))
    return held[np.searchsorted(-last[order], -steps, "right")].astype(float)
