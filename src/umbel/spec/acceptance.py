"""How often proposed tokens come true, learned by template and by what was known of each token when it was proposed."""

from __future__ import annotations

import numpy as np

from umbel.ir.columns import runs
from umbel.spec.base import Drafts, Floats, Ints

GROUPS = 64  # that are told apart; the others are one
DEPTHS = 8  # places in a draft that are told apart, the last one for all beyond
KINDS = 16  # of tokens: by how likely the drafter says they are, or by their place in the answer where it says nothing
TRUST = 4.0  # tokens that what is known in general counts for in a particular case
FADE = 256.0  # tokens of a case beyond which older ones count half
REFRESH = 8  # lots of news after which estimates are made again
_SAID = 8  # kinds of tokens of which the drafter says how likely they are


class Acceptance:
    """Counts of tokens that were proposed behind ones that came true, and of those that came true themselves.

    A case is a group of rows, a kind and a place in the draft. Where few were seen, the estimate leans on all groups,
    and these on what the drafter says.
    """

    def __init__(self) -> None:
        self._seen, self._true = np.zeros((2, GROUPS, KINDS, DEPTHS))
        said = (np.arange(_SAID) + 0.5) / _SAID
        self._prior = np.append(said, np.full(KINDS - _SAID, 0.5))[:, None]  # [kinds, 1]
        self._news: list[tuple[Ints, Ints, Ints]] = []  # cases that were seen, how many of each sample, how many true
        self._logs = self._estimate()

    def cases(self, groups: Ints, places: Ints, owner: Ints, drafts: Drafts) -> Ints:
        """The case of each proposed token (`[tokens]`), of sample `owner[token]`; `groups` and `places` (tokens of the
        answer) are the samples'."""
        depth = np.arange(len(owner)) - drafts.begin[owner]
        if drafts.likely is None:
            place = np.frexp(places[owner] + depth)[1]  # 0, 1, 2 to 3, 4 to 7, ...
            kinds = _SAID + np.minimum(place, KINDS - _SAID - 1)
        else:
            kinds = np.minimum((drafts.likely * _SAID).astype(np.int64), _SAID - 1)
        group = np.minimum(groups, GROUPS - 1)[owner]
        return np.asarray((group * KINDS + kinds) * DEPTHS + np.minimum(depth, DEPTHS - 1))

    def chances(self, cases: Ints, owner: Ints, begin: Ints) -> Floats:
        """How likely each token comes true together with all before it of its sample (`[tokens]`); sample i has those
        of cases `begin[i]:begin[i + 1]`."""
        sums = np.zeros(len(cases) + 1)
        np.cumsum(self._logs[cases], out=sums[1:])
        return np.exp(sums[1:] - sums[begin[owner]])

    def learn(self, cases: Ints, first: Ints, seen: Ints, accepted: Ints) -> None:
        """Of the drafts of `cases`, `seen[i]` tokens from `first[i]` on were found true but for the last, where fewer
        were `accepted` (`[samples]`)."""
        self._news.append((cases[runs(first, seen)], seen, accepted))
        if len(self._news) == REFRESH:
            self._count(*(np.concatenate(part) for part in zip(*self._news, strict=True)))
            self._news = []

    def _count(self, cases: Ints, seen: Ints, accepted: Ints) -> None:
        n, true = self._seen.size, runs(np.zeros_like(seen), seen) < np.repeat(accepted, seen)
        self._seen += np.bincount(cases, minlength=n).reshape(self._seen.shape)
        self._true += np.bincount(cases[true], minlength=n).reshape(self._seen.shape)
        many = self._seen > FADE
        self._seen[many] /= 2
        self._true[many] /= 2
        self._logs = self._estimate()

    def _estimate(self) -> Floats:
        """The logarithm of the probability of each case (flat)."""
        rate = self._prior
        for axes in ((0, 2), (0,), ()):  # by kind, then by place in the draft, then by group
            seen, true = (part.sum(axes) if axes else part for part in (self._seen, self._true))
            if axes == (0, 2):
                seen, true = seen[:, None], true[:, None]
            rate = (true + TRUST * rate) / (seen + TRUST)
        return np.log(np.maximum(rate, 1e-6)).reshape(-1)
