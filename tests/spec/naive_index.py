"""What an AnswerIndex has to propose, by its rule alone: a dictionary of contexts over whole answers, one by one."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.spec.answer_index import BEGIN, CONTEXTS, MOST_VOTES, UNKNOWN, WIDTH

Context = tuple[int | None, ...]
Place = tuple[int, int]  # an answer, and which of its tokens


@dataclass
class Entry:
    """Where the usual token after a context stood last, and what came since: it or others."""

    at: Place
    hits: int = 0
    misses: int = 0

    def score(self) -> float:
        """How likely the token is."""
        return (self.hits + UNKNOWN) / (self.hits + self.misses + 1)


@dataclass
class Found:
    """What is known of a token: its `contexts`, how `likely` it was, where the one stands that should have been there
    by the longest of them (`usual`), the `chance` of that, and whether it is another token (`wrong`)."""

    contexts: list[Context]
    likely: float = UNKNOWN
    usual: Place | None = None
    chance: float = UNKNOWN
    wrong: bool = True


class NaiveIndex:
    """Answers as lists, how likely each of their tokens is (in 255ths), and a dictionary."""

    def __init__(self) -> None:
        self.answers: list[list[int]] = []
        self.likely: list[list[int]] = []
        self.entries: dict[Context, Entry] = {}

    def contexts(self, scope: int, before: list[int]) -> list[Context]:
        """The contexts that an answer ends with, the short ones first."""
        tail = ([BEGIN] * WIDTH + before)[-WIDTH:]
        return [(scope if scoped else None, *tail[-count:]) for count, scoped in CONTEXTS]

    def add(self, lot: list[tuple[int, list[int]]]) -> None:
        """Answers (scope, tokens) that finished together: they are gone through once for each kind of context."""
        first = len(self.answers)
        self.answers += [tokens for _, tokens in lot]
        self.likely += [[_rounded(UNKNOWN)] * len(tokens) for _, tokens in lot]
        found = {
            (first + i, place): Found(self.contexts(scope, tokens[:place]))
            for i, (scope, tokens) in enumerate(lot)
            for place in range(len(tokens))
        }
        left = list(found)
        for kind in range(len(CONTEXTS)):
            again, new = dict[Context, list[Place]](), set[Context]()  # what is new is for those who wanted it only
            for at in left:
                context, wrong = found[at].contexts[kind], found[at].wrong
                if context in self.entries and (wrong or context not in new):
                    again.setdefault(context, []).append(at)
                elif wrong:
                    self.entries[context] = Entry(at)
                    new.add(context)
            for context, places in again.items():
                self.vote(self.entries[context], places)
            left = [at for at in left if any(at in places for places in again.values())]
            for at in left:
                found[at].wrong = not self.right(self.entries[found[at].contexts[kind]], at, found[at])
        for at, one in found.items():
            if one.usual is not None and self.token(one.usual) != self.token(at):
                self.likely[one.usual[0]][one.usual[1]] = _rounded(one.chance)
        for (answer, place), one in found.items():
            self.likely[answer][place] = _rounded(one.likely)

    def right(self, entry: Entry, at: Place, one: Found) -> bool:
        """Whether the context has the right token for a place; how likely that and the usual one are follows."""
        agrees, seen = self.token(entry.at) == self.token(at), 1 + entry.hits + entry.misses
        one.usual = entry.at
        one.likely = (one.likely + agrees * entry.hits) / seen
        one.chance = (self.likely[entry.at[0]][entry.at[1]] / 255 + entry.hits) / seen
        return agrees

    def vote(self, entry: Entry, places: list[Place]) -> None:
        """The context came again, at these places."""
        usual = self.token(entry.at)
        agree = [at for at in places if self.token(at) == usual]
        others = [at for at in places if self.token(at) != usual]
        entry.hits, entry.misses = entry.hits + len(agree), entry.misses + len(others)
        if others and entry.misses > entry.hits:
            entry.at, entry.hits = others[-1], 0
        elif agree:
            entry.at = agree[-1]
        while max(entry.hits, entry.misses) > MOST_VOTES:
            entry.hits, entry.misses = entry.hits // 2, entry.misses // 2

    def token(self, at: Place) -> int:
        """The token at a place."""
        return self.answers[at[0]][at[1]]

    def propose(self, scope: int, before: list[int], most: int) -> tuple[list[int], list[float]]:
        """What came after the context whose token is the most likely, of such the longest, and how likely it is."""
        found = [self.entries[c] for c in self.contexts(scope, before) if c in self.entries]
        if not found:
            return [], []
        best = max(reversed(found), key=Entry.score)
        answer, place = best.at
        likely = [one / 255 for one in self.likely[answer][place : place + most]]
        return self.answers[answer][place : place + most], [best.score(), *likely[1:]]


def _rounded(likely: float) -> int:
    return max(round(likely * 255), 1)
