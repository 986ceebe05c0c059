"""Says how many keys a job leaves unread where selectors pick what attention reads."""

from __future__ import annotations

from umbel.ir.plan import Decision, Fact
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.reading import PlannedKeys
from umbel.plan.walk.sharing import Sharing


def count_keys(draft: PlanDraft) -> PlanDraft:
    """Decide "keys read": those that prompts and answers read at most in each layer, of those that there are."""
    keys = PlannedKeys.of(draft)
    if keys is None:
        return draft
    facts: dict[str, Fact] = {"read": round(keys.read), "whole": round(keys.whole)}
    facts["skipped"] = round(keys.whole - keys.read)
    parts = _of("prompts", keys.prompts, keys.all_prompts), _of("answers", keys.answers, keys.all_answers)
    why = f"in each layer, at most; {{skipped:,}} of {{whole:,}} are skipped: {', '.join(parts)}"
    if keys.answers < keys.all_answers and (readers := Sharing.of(draft).readers):
        facts |= {"readers": readers, "share": keys.share, "r_p": readers * keys.share}
        why += "; a shared run is held once, and {readers:,.1f} samples read {share:.0%} of it each (r * p = {r_p:.2f})"
    return draft.decide(Decision("keys read", round(keys.read), why, facts=facts))


def _of(whose: str, read: float, whole: float) -> str:
    return f"{whose} read {read / whole:.0%} of theirs" if whole else f"{whose} have none"
