"""Decides who proposes tokens: by the chances that proposals had in earlier runs, and the price of checking them."""

from __future__ import annotations

import numpy as np

from umbel.cost.drafts import Decodes, Offers
from umbel.cost.load import Load
from umbel.ir.plan import Decision, Refusal
from umbel.plan.draft import PlanDraft
from umbel.plan.walk.pricing import ROUGH_SAMPLES, run_draft, run_seconds
from umbel.technique import NONE

BATCH = "batch"  # the drafter that is taken where none is asked for
LEAST_GAIN = 1.05  # how many times faster a run must be expected to be for that
_UNKNOWN = (
    "nothing is known yet of how often what finished rows wrote comes true in others: --speculate {name} learns it "
    "as it runs, and lets be where it does not pay"
)


def choose_drafter(draft: PlanDraft) -> PlanDraft:
    """As asked; by itself the batch drafts for itself where a run like earlier ones gains by it."""
    asked, offers = draft.config.speculate, _offers(draft)
    name = BATCH if asked in NONE["speculate"] else asked.partition(":")[0]
    if asked == "off":
        return draft.decide(Decision("speculate", "off", "as asked"))
    if not offers.asked or name != BATCH:
        why = _UNKNOWN.format(name=name)
        if asked == "auto":
            return draft.refuse(Refusal(f"drafter: {name}", None, why))
        why = f"as asked; {why}" if name == BATCH else "as asked; time and steps are those without"
        return draft.decide(Decision("speculate", asked, why), speculate=asked)
    return _priced(draft, offers)


def _priced(draft: PlanDraft, offers: Offers) -> PlanDraft:
    """Whether the batch drafts for itself, by what was on offer in earlier runs."""
    load = run_draft(draft, ROUGH_SAMPLES)[1]
    step, plain = _usual_step(load), draft.price.total(load).expected
    bargain = offers.best(step, draft.price.each)
    sped = run_seconds(draft, bargain=bargain) if bargain.drafted else plain
    facts = {
        "drafted": bargain.drafted,
        "accepted": bargain.accepted,
        "rows": offers.break_even(step, draft.price.each, draft.chunk),
        "running": step.samples,
    }
    until = "with up to {rows:,} running rows that pays by price, and {running:,} run here as a rule"
    if draft.config.speculate == "auto" and (not bargain.drafted or plain < LEAST_GAIN * sped):
        why = f"would not be faster by much: {until}"
        return draft.refuse(Refusal(f"drafter: {BATCH}", sped - plain, why, facts))
    if not bargain.drafted:
        return draft.decide(Decision("speculate", BATCH, f"as asked; {until}", facts=facts), speculate=BATCH)
    why = "what finished rows wrote: {drafted:.1f} tokens a row and step, of which {accepted:.1f} come true as in "
    why += f"earlier runs; {until}"
    decision = Decision("speculate", BATCH, why, (("off", plain),), facts)
    return draft.decide(decision, speculate=BATCH, bargain=bargain)


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


def _usual_step(load: Load) -> Decodes:
    """The step of which half of all tokens are drawn in ones with as many samples or more."""
    order = np.argsort(load.samples)
    drawn = np.cumsum((load.samples * load.steps)[order])
    if not len(order) or not drawn[-1]:
        return Decodes(1, 0.0)
    at = order[np.searchsorted(drawn, drawn[-1] / 2)]
    return Decodes(max(round(load.samples[at]), 1), float(load.pairs[at] / max(load.tokens[at], 1.0)))
