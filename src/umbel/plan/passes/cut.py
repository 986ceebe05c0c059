"""Says how many tokens of prompts a job leaves out where a draft model chooses what is read."""

from __future__ import annotations

from umbel.ir.plan import Decision
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.cutting import PlannedCut


def count_cut(draft: PlanDraft) -> PlanDraft:
    """Decide "prompt tokens read": those that stay, of all that are computed; what rows share is read whole."""
    cut = PlannedCut.of(draft)
    if cut is None:
        return draft
    facts = {"prompts": cut.prompts, "own": cut.own, "out": cut.out}
    why = "of {prompts:,}; {out:,} of the {own:,} that rows share with no other are left out; the draft reads all"
    return draft.decide(Decision("prompt tokens read", cut.prompts - cut.out, why, facts=facts))
