"""A drafter as another package would bring it: what came last comes again, the longer the row's prompt the oftener."""

from __future__ import annotations

from umbel.spec.base import Drafts, Ints, Setting, TokenIds
from umbel.technique import Technique

ROW = Technique("drafter", "echo", exact=True, loads="echo_drafter:Echo")


class Echo:
    """Proposes the last token of a sample, once for each four tokens of its prompt."""

    def __init__(self, setting: Setting):
        self.last: dict[int, tuple[int, int]] = {}  # by rank: the token, and how often

    def start(self, rank: int, row: int, group: int, prompt: TokenIds) -> None:
        """Begin with the end of the prompt."""
        self.last[rank] = int(prompt[-1]), len(prompt) // 4

    def extend(self, ranks: Ints, tokens: TokenIds, begin: Ints) -> None:
        """Note the last tokens."""
        for rank, token in zip(ranks.tolist(), tokens[begin[1:] - 1].tolist(), strict=True):
            self.last[rank] = token, self.last[rank][1]

    def propose(self, ranks: Ints, most: Ints) -> Drafts:
        """The last token again and again."""
        known = [self.last[rank] for rank in ranks.tolist()]
        return Drafts.of([[token] * min(times, k) for (token, times), k in zip(known, most.tolist(), strict=True)])

    def end(self, rank: int, *, done: bool) -> None:
        """Forget it."""
        del self.last[rank]
