"""Decides who proposes tokens: by the chances that proposals had in earlier runs, and the price of checking them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from umbel.cost.drafts import Offers
from umbel.errors import UsageError
from umbel.ir.plan import Decision, Refusal
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.draft_law import decide_by_law, law_of, refuse_by_law, room_decision, usual_run
from umbel.plan.walk.pricing import run_seconds
from umbel.technique import NONE

LOOKUP = "lookup"  # the drafter that is taken where none is asked for
LEAST_GAIN = 1.05  # how many times faster a run must be expected to be for that
NOT_BACK = "layers keep a state, which cannot go back where a proposed token is rejected"
_NO_ROOM = "the pool has no room for proposals beside running rows"
_UNKNOWN = (
    "nothing is known yet of how often what finished rows wrote, or stands in prompts, comes true: "
    "--speculate {name} learns it as it runs, and lets be where it does not pay"
)


def choose_drafter(draft: PlanDraft) -> PlanDraft:
    """As asked; by itself what is looked up where a run like earlier ones gains by it."""
    asked, offers = draft.config.speculate, _offers(draft)
    name = LOOKUP if asked in NONE["speculate"] else asked.partition(":")[0]
    if draft.spec.recurrences:
        return _refuse_states(draft, asked, name)
    if asked == "off":
        return draft.decide(Decision("speculate", "off", "as asked"))
    law = law_of(draft, asked)
    if name != LOOKUP and law.is_known:
        return decide_by_law(draft, asked, law, usual_run(draft))
    draft = draft.refuse(*_measured(draft))
    if not offers.asked or name != LOOKUP:
        why = _UNKNOWN.format(name=name)
        if asked == "auto":
            return draft.refuse(Refusal(f"drafter: {name}", None, why))
        why = f"as asked; {why}" if name == LOOKUP else "as asked; time and steps are those without"
        return draft.decide(Decision("speculate", asked, why), speculate=asked)
    return _priced(draft, offers)


def _refuse_states(draft: PlanDraft, asked: str, name: str) -> PlanDraft:
    """No one proposes tokens to a model that keeps states. Raises UsageError where someone was asked for."""
    if asked not in NONE["speculate"]:
        raise UsageError(f"speculate={asked!r}: {NOT_BACK}; leave it out")
    return draft.refuse(Refusal(f"drafter: {name}", None, NOT_BACK))


def _priced(draft: PlanDraft, offers: Offers) -> PlanDraft:
    """Whether rows are looked up, by what was on offer in earlier runs."""
    run = usual_run(draft)
    step, plain = run.step, run.seconds
    wanted = offers.best(step, draft.price.each)
    bargain = run.room.fit(wanted)
    sped = run_seconds(draft, bargain=bargain) if bargain.drafted else plain
    facts = {
        "drafted": bargain.drafted,
        "accepted": bargain.accepted,
        "rows": offers.break_even(step, draft.price.each, draft.chunk),
        "running": step.samples,
    }
    until = "with up to {rows:,} running rows that pays by price, and {running:,} run here as a rule"
    if draft.config.speculate == "auto" and (not bargain.drafted or plain < LEAST_GAIN * sped):
        why = f"would not be faster by much: {until}" if bargain.drafted or not wanted.drafted else _NO_ROOM
        return draft.refuse(Refusal(f"drafter: {LOOKUP}", sped - plain, why, facts))
    if not bargain.drafted:
        why = f"as asked; {_NO_ROOM if wanted.drafted else until}"
        draft = draft.decide(Decision("speculate", LOOKUP, why, facts=facts), speculate=LOOKUP)
        return draft.decide(room_decision(run, wanted)) if wanted.drafted else draft
    why = "what finished rows wrote or prompts have: {drafted:.1f} tokens a row and step, of which {accepted:.1f} come "
    why += f"true as in earlier runs; {until}"
    decision = Decision("speculate", LOOKUP, why, (("off", plain),), facts)
    return draft.decide(decision, speculate=LOOKUP, bargain=bargain).decide(room_decision(run, wanted))


def _measured(draft: PlanDraft) -> Iterator[Refusal]:
    """Drafters that were measured, where the plan may choose and takes this one or none."""
    others = [name for name in draft.known.laws if name != LOOKUP] if draft.config.speculate == "auto" else []
    run = usual_run(draft) if others else None
    for name in others:
        law = law_of(draft, name)
        if run is not None and law.is_known:
            yield refuse_by_law(draft, name, law, run)


def _offers(draft: PlanDraft) -> Offers:
    """What was on offer in earlier runs, in the mix of templates that the rows have."""
    known = draft.known.offers
    tokens = np.bincount(draft.groups, draft.samples * draft.lengths, len(draft.templates))
    found = Offers.none()
    for name, share in zip(draft.templates, (tokens / max(tokens.sum(), 1)).tolist(), strict=True):
        one = known.get(name) or known.get("")
        if one is not None and one.asked and share:
            found = found.joined(Offers(share, one.counts / one.asked * share))
    return found
