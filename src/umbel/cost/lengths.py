"""How long answers are: a distribution learned from finished ones, and conditioned on the tokens already produced.

The past of Past-Future scheduling (LightLLM, arXiv 2507.10150), with three changes. Answers that were stopped by their
limit, and those that are still running, count as "at least so long" (Kaplan and Meier 1958): otherwise the first
answers to end, which are the short ones, would stand for all. Of lengths that were never seen only the scale is taken
to be known: an answer that outlives the longest one is as likely to double from there as from anywhere further on
(the share that goes on falls as 1 / length). And a group of rows with few answers of its own borrows from all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Growable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Entry = TypeVar("Entry")

LEAN = 8.0  # answers that all rows together count for in a group
ENOUGH = (
    100.0  # from so many answers on, none is expected to be longer than the longest; an earlier run counts as so many
)


@dataclass(frozen=True, slots=True)
class LengthCurve:
    """Output lengths seen: distinct `lengths` (ascending), and how many answers ended there (`counts`).

    `cut` counts the answers that their limit stopped at each length, of which only is known that they are longer (None:
    no answer was stopped).
    """

    lengths: Ints
    counts: Floats
    cut: Floats | None = None

    @classmethod
    def none(cls) -> LengthCurve:
        """An empty curve."""
        return cls(np.zeros(0, np.int64), np.zeros(0))

    @classmethod
    def of(cls, ended: Ints, cut: Ints | None = None) -> LengthCurve:
        """The curve of answers that ended at `ended` and others that were stopped at `cut` (`[answers]`, tokens)."""
        stopped = np.zeros(0, np.int64) if cut is None else cut
        lengths, place = np.unique(np.concatenate([ended, stopped]), return_inverse=True)
        counts = np.bincount(place[: len(ended)], minlength=len(lengths)).astype(float)
        return cls(lengths, counts, np.bincount(place[len(ended) :], minlength=len(lengths)).astype(float))

    @property
    def answers(self) -> float:
        """The number of answers seen, stopped ones included."""
        return float(self.counts.sum() + self.stopped.sum())

    @property
    def stopped(self) -> Floats:
        """Answers stopped at each length (`[lengths]`)."""
        return np.zeros(len(self.lengths)) if self.cut is None else self.cut

    def survival(self, tokens: Ints | int) -> Floats:
        """The share of answers longer than so many tokens; beyond the longest seen it falls as 1 / length."""
        share = np.append(1.0, self._after())[np.searchsorted(self.lengths, tokens, "right")]
        return np.asarray(share * self.longest / np.maximum(tokens, self.longest)) if self.longest else share

    def mean(self, limit: Ints | int, produced: Ints | int = 0) -> Floats:
        """Expected length of an answer that has produced so many tokens and has not ended, when `limit` stops it.

        An answer that is longer than all others, where all of those ended, is assumed to run to its limit.
        """
        alive = self.survival(produced)
        more = (self._moment(limit, 1) - self._moment(produced, 1)) / np.where(alive > 0, alive, 1.0)
        return np.where(alive > 0, np.minimum(produced + more, limit), limit)

    def variance(self, limit: Ints | int) -> Floats:
        """Variance of the length of an answer that `limit` stops."""
        return np.asarray(np.maximum(self._moment(limit, 2) - self._moment(limit, 1) ** 2, 0.0))

    def quantile(self, share: Floats | float, limit: Ints | int, produced: Ints | int = 0) -> Ints:
        """The length that this share of the answers does not exceed; conditions as in `mean`."""
        goal = np.asarray((1.0 - share) * self.survival(produced) + 1e-12)
        after = self._after()
        at = np.searchsorted(-after, -goal)  # the first length after which no more than `goal` go on
        beyond = np.ceil(self._unseen(after) * self.longest / goal) if self.longest else np.full(goal.shape, np.inf)
        found = np.where(at < len(after), np.append(self.lengths, 0)[at], np.minimum(beyond, 1 << 62))
        return np.asarray(np.minimum(np.maximum(found, np.asarray(produced) + 1), limit), np.int64)

    def bounds(self, limit: Ints | int, answers: float) -> tuple[Floats, Floats]:
        """The expected length if answers that were not seen to end did so at once, and if they all ran to `limit`.

        The curve rests on so many `answers`. Where they are few (`ENOUGH`), the next one may be unlike them all: it
        counts as a single token, and as one without end.
        """
        after, one = self._after(), float(answers < ENOUGH)
        within = self._moment(np.minimum(limit, self.longest), 1)
        endless = np.maximum(np.asarray(limit) - self.longest, 0) * self._unseen(after)
        n = answers
        return (within * n + one) / (n + one), ((within + endless) * n + limit * one) / (n + one)

    @property
    def longest(self) -> int:
        """The longest answer seen; 0 when there is none."""
        return int(self.lengths[-1]) if len(self.lengths) else 0

    def scaled(self, most: float) -> LengthCurve:
        """The same curve, with the weight of at most so many answers."""
        factor = min(1.0, most / max(self.answers, 1.0))
        return LengthCurve(self.lengths, self.counts * factor, self.stopped * factor)

    def joined(self, other: LengthCurve) -> LengthCurve:
        """The curve of the answers of both."""
        lengths, place = np.unique(np.concatenate([self.lengths, other.lengths]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([self.counts, other.counts]), len(lengths))
        cut = np.bincount(place, np.concatenate([self.stopped, other.stopped]), len(lengths))
        return LengthCurve(lengths, counts.astype(float), cut.astype(float))

    def to_json(self) -> dict[str, list[float]]:
        """The curve as plain lists."""
        return {"lengths": self.lengths.tolist(), "counts": self.counts.tolist(), "cut": self.stopped.tolist()}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> LengthCurve:
        """The curve that `to_json` wrote; raises ValueError for anything else."""
        lengths = np.array(values["lengths"], np.int64)
        counts, cut = (np.array(values[name], float) for name in ("counts", "cut"))
        if not lengths.shape == counts.shape == cut.shape == (len(lengths),):
            raise ValueError(f"a curve of {len(lengths)} lengths has {counts.shape} counts and {cut.shape} cut ones")
        if (np.diff(lengths, prepend=0) <= 0).any() or not (
            np.isfinite(counts + cut) & (counts >= 0) & (cut >= 0)
        ).all():
            raise ValueError("lengths must be positive and ascend, counts must be finite and not negative")
        return cls(lengths, counts, cut)

    def _moment(self, tokens: Ints | int, power: int) -> Floats:
        """Mean of min(length, tokens) to a power: each token of an answer adds its own increment while the answer goes
        on."""
        edges, levels = np.append(0, self.lengths), np.append(1.0, self._after())
        below = np.append(0.0, np.cumsum(np.diff(edges**power) * levels[:-1]))
        inside = np.minimum(tokens, self.longest) if self.longest else np.asarray(tokens)
        at = np.searchsorted(edges, inside, "right") - 1
        found = below[at] + levels[at] * (inside**power - edges[at] ** power)
        return np.asarray(found + self._moment_beyond(tokens, power) if self.longest else found)

    def _moment_beyond(self, tokens: Ints | int, power: int) -> Floats:
        """What lengths beyond the longest seen add to a moment: the integral of a share that falls as 1 / length."""
        ratio = np.maximum(tokens, self.longest) / self.longest
        grown = np.log(ratio) if power == 1 else 2 * self.longest * (ratio - 1)
        return np.asarray(self._unseen(self._after()) * self.longest * grown)

    @staticmethod
    def _unseen(after: Floats) -> float:
        """The share of answers that are longer than all that were seen."""
        return float(after[-1]) if len(after) else 1.0

    def _after(self) -> Floats:
        """The share of answers longer than each length (`[lengths]`), by Kaplan and Meier's product."""
        both = self.counts + self.stopped
        at_risk = np.cumsum(both[::-1])[::-1]
        return np.cumprod(1.0 - self.counts / np.maximum(at_risk, 1e-300), dtype=np.float64)


@dataclass(slots=True)
class _Tally:
    """Answers of one group: how many ended, and how many were stopped, at each length."""

    ended: dict[int, float] = field(default_factory=dict)
    cut: dict[int, float] = field(default_factory=dict)
    answers: float = 0.0

    def add(self, tokens: int, *, cut: bool) -> None:
        """Count one answer of so many tokens."""
        counts = self.cut if cut else self.ended
        counts[tokens] = counts.get(tokens, 0.0) + 1.0
        self.answers += 1.0

    def curve(self) -> LengthCurve:
        """The counts as a curve."""
        lengths = np.array(sorted({*self.ended, *self.cut}), np.int64)
        counts, cut = (np.array([d.get(n, 0.0) for n in lengths.tolist()]) for d in (self.ended, self.cut))
        return LengthCurve(lengths, counts, cut)


class LengthBook(Growable):
    """Lengths of answers by group of rows: what was known before and what is learned as samples end.

    `known` are curves of earlier runs by template, that of all rows under "". `groups` (`[rows]`) are the numbers of
    the rows' groups, 0 for rows without a template.
    """

    _FILLS: ClassVar[dict[str, float]] = {"groups": 0}
    groups: Ints

    def __init__(self, known: Mapping[str, LengthCurve] | None = None):
        super().__init__()
        self.ended = 0  # answers so far, those that teach nothing included
        self._known = known or {}
        self._numbers: dict[str, int] = {"": 0}  # group of each template
        self._seeds: dict[int, LengthCurve] = {}
        self._common = self._known.get("", LengthCurve.none()).scaled(ENOUGH)
        self._tallies: dict[int, _Tally] = {}
        self._all = _Tally()

    @classmethod
    def of(cls, groups: Ints, templates: tuple[str, ...], known: Mapping[str, LengthCurve]) -> LengthBook:
        """The book of rows whose `groups` and `templates` are as in ir.plan.Plan, `known` as in cost.known.Known."""
        book = cls(known)
        book.add_rows(groups, templates)
        return book

    def add_rows(self, groups: Ints, templates: tuple[str, ...]) -> None:
        """More rows, each of `groups[i]` of the `templates`; a template that is here already keeps its number."""
        numbers = np.array([self._number(name) for name in templates], np.int64)
        self._grow(len(groups), groups=numbers[groups])

    def repeat(self, row: int, count: int) -> None:
        """More rows, in the group of one that is there."""
        self._grow(count, groups=self.groups.item(row))

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            number = self._numbers[name] = len(self._numbers)
            if name in self._known:
                self._seeds[number] = self._known[name].scaled(ENOUGH)
        return self._numbers[name]

    def add(self, group: int, tokens: int, *, cut: bool = False) -> None:
        """Count an answer of the group that has ended after so many tokens; `cut` when its limit stopped it."""
        if group not in self._tallies:
            self._tallies[group] = _Tally()
        self._tallies[group].add(tokens, cut=cut)
        self._all.add(tokens, cut=cut)
        self.ended += 1

    def pass_by(self) -> None:
        """An answer has ended that teaches nothing, as only its limit could end it."""
        self.ended += 1

    def own(self, group: int) -> LengthCurve:
        """The curve of one group alone, from before and from this run."""
        seed = self._seeds.get(group, LengthCurve.none())
        return seed.joined(self._tallies[group].curve()) if group in self._tallies else seed

    def everyone(self) -> LengthCurve:
        """The curve of all rows together."""
        return self._common.joined(self._all.curve())

    def curve(self, group: int) -> LengthCurve:
        """The curve of a group, with that of all rows added as if it were a few answers of its own."""
        return self.own(group).joined(self.everyone().scaled(LEAN))

    def by_template(self, found: Mapping[int, Entry]) -> dict[str, Entry]:
        """What was found of groups, by the name of their template."""
        return {name: found[group] for name, group in self._numbers.items() if group in found}

    def bank(self) -> dict[str, LengthCurve]:
        """What was learned since the last time, without what was known before, by template; "" for all rows together.
        From then on it counts as known before."""
        if not self._all.answers:
            return {}
        named = {name: self._tallies[g].curve() for name, g in self._numbers.items() if name and g in self._tallies}
        found = {**named, "": self._all.curve()}
        self._seeds |= {group: self.own(group) for group in self._tallies}
        self._common = self.everyone()
        self._tallies, self._all = {}, _Tally()
        return found
