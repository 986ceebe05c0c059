"""The KV memory that proposed tokens may stand in: what running rows leave, so that no row ever gives way to them.

SpecMemo (arXiv 2506.01986) bounds the memory of candidates, most of which are rejected. Here a proposed token stands
where its row's own next tokens will, and a page that only rejected ones needed is given back with their step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.cost.drafts import Bargain

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DraftRoom:
    """The budget of proposals in the fullest step of a plan: the pool has `free_tokens` then, beside `running` samples,
    and pages of `page_size` tokens; or it `holds_all` that samples at once can ever write. The part in `drawn` of all
    tokens is drawn in steps that hold so many more a sample (`left`) beside those of prompts; where both are empty,
    steps have room for all."""

    free_tokens: int
    running: int
    page_size: int
    holds_all: bool = False
    left: Floats = field(default_factory=lambda: np.zeros(0))
    drawn: Floats = field(default_factory=lambda: np.zeros(0))

    def is_tight(self, drafted: float) -> bool:
        """Whether so many tokens for each sample do not fit into what is free: proposals then stand in what the
        samples' own last pages have left."""
        return not self.holds_all and self.free_tokens < self.running * drafted

    def share(self, drafted: float) -> float:
        """The part of `drafted` tokens a sample that finds room in the pool and in the steps; as many tokens of a last
        page are left as not."""
        in_steps = self.in_steps(drafted)
        if drafted <= 0 or not self.is_tight(drafted):
            return in_steps
        return min(float(np.minimum(np.arange(self.page_size), drafted).mean() / drafted), in_steps)

    def in_steps(self, drafted: float) -> float:
        """The part of `drafted` tokens a sample that steps have room for."""
        if drafted <= 0 or not len(self.left):
            return 1.0
        return float(np.minimum(self.left / drafted, 1.0) @ self.drawn)

    def fit(self, bargain: Bargain) -> Bargain:
        """What is left of a bargain: nothing where no proposal finds room."""
        share = self.share(bargain.drafted)
        if not share or not bargain.drafted:
            return Bargain()
        return Bargain(bargain.drafted * share, bargain.accepted * share, 1 + (bargain.gain - 1) * share)

    def reason(self, bargain: Bargain) -> tuple[str, Mapping[str, int | float | str]]:
        """Why proposals may take so much, with its numbers, as in a Decision."""
        facts = {"free_tokens": self.free_tokens, "running": self.running, "share": self.share(bargain.drafted)}
        if round(self.in_steps(bargain.drafted), 2) < 1 and not self.is_tight(bargain.drafted):
            return "steps have room for {share:.0%} of the proposed tokens beside those of prompts", facts
        if self.holds_all:
            return (
                "proposals stand where their rows' own tokens will, and the pool holds all that rows may write",
                facts,
            )
        if not self.is_tight(bargain.drafted):
            return "the fullest step leaves {free_tokens:,} tokens free beside {running:,} running rows", facts
        why = "the fullest step leaves {free_tokens:,} tokens free beside {running:,} running rows, too few for all: "
        return why + "{share:.0%} of the proposed tokens fit into what these rows' last pages have left", facts
