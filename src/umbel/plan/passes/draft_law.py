"""What the laws of drafters say of a plan: how many tokens to ask for in its usual step, and what that gains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umbel.cost.draft_law import DraftLaw
from umbel.cost.draft_room import DraftRoom
from umbel.cost.drafts import Bargain, Decodes
from umbel.cost.load import Load
from umbel.ir.plan import Decision, Fact, Refusal
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.memory import useful_pages
from umbel.plan.walk.pricing import ROUGH_SAMPLES, run_draft, run_seconds


@dataclass(frozen=True, slots=True)
class UsualRun:
    """A draft's run without proposals: the `step` in which half of its tokens are drawn with as many samples or more,
    the `room` that proposals would have, and its `seconds`."""

    step: Decodes
    room: DraftRoom
    seconds: float


def usual_run(draft: PlanDraft) -> UsualRun:
    """By a rough walk."""
    timeline, load = run_draft(draft, ROUGH_SAMPLES)
    step, page = _usual_step(load), draft.config.page_size
    free = max(draft.kv_tokens - timeline.kv_peak_tokens, 0)
    holds_all = draft.kv_tokens >= useful_pages(draft) * page
    left = np.maximum(draft.chunk - load.tokens, 0) / np.maximum(load.samples, 1.0)
    drawn = load.samples * load.steps / max(float((load.samples * load.steps).sum()), 1.0)
    room = DraftRoom(free, step.samples, page, holds_all, left, drawn)
    return UsualRun(step, room, draft.price.total(load).expected)


def room_decision(run: UsualRun, wanted: Bargain) -> Decision:
    """The KV memory that proposals may take in the fullest step, in tokens, and why."""
    why, facts = run.room.reason(wanted)
    tokens = round(run.step.samples * run.room.fit(wanted).drafted)
    return Decision("draft_tokens", tokens, why, facts=facts)


def law_of(draft: PlanDraft, drafter: str) -> DraftLaw:
    """The law of a drafter in the mix of templates that the rows have; one that was not measured says what all do."""
    known = draft.known.laws.get(drafter, {})
    tokens = np.bincount(draft.groups, draft.samples * draft.lengths, len(draft.templates))
    whole, found = DraftLaw.none(), DraftLaw.none()
    for one in known.values():
        whole = whole.joined(one)
    for name, share in zip(draft.templates, (tokens / max(tokens.sum(), 1)).tolist(), strict=True):
        one = known.get(name, whole)
        if share and one.asked:
            found = found.joined(one.scaled(share * whole.asked / one.asked))
    return found


def decide_by_law(draft: PlanDraft, drafter: str, law: DraftLaw, run: UsualRun) -> PlanDraft:
    """A drafter other than the usual one, as asked: by the law the plan has the steps and seconds with its tokens."""
    most, wanted = law.best(run.step, draft.price.each)
    bargain = run.room.fit(wanted)
    why, facts = _words(draft, law, run.step, most, bargain)
    off = (("off", run.seconds),) if bargain.drafted else ()
    draft = draft.decide(Decision("speculate", drafter, f"as asked; {why}", off, facts), speculate=drafter)
    return draft.decide(room_decision(run, wanted), bargain=bargain) if most else draft


def refuse_by_law(draft: PlanDraft, drafter: str, law: DraftLaw, run: UsualRun) -> Refusal:
    """A drafter that was measured and not asked for."""
    most, wanted = law.best(run.step, draft.price.each)
    bargain = run.room.fit(wanted)
    why, facts = _words(draft, law, run.step, most, bargain)
    seconds = run_seconds(draft, bargain=bargain) - run.seconds if bargain.drafted else None
    return Refusal(f"drafter: {drafter}", seconds, f"taken only by name: --speculate {drafter}; {why}", facts)


def _usual_step(load: Load) -> Decodes:
    """The step of which half of all tokens are drawn in ones with as many samples or more."""
    order = np.argsort(load.samples)
    drawn = np.cumsum((load.samples * load.steps)[order])
    if not len(order) or not drawn[-1]:
        return Decodes(1, 0.0)
    at = order[np.searchsorted(drawn, drawn[-1] / 2)]
    return Decodes(max(round(load.samples[at]), 1), float(load.pairs[at] / max(load.tokens[at], 1.0)))


def _words(draft: PlanDraft, law: DraftLaw, step: Decodes, most: int, bargain: Bargain) -> tuple[str, dict[str, Fact]]:
    """The law as a reason, with its numbers."""
    facts: dict[str, Fact] = {
        "most": most,
        "drafted": bargain.drafted,
        "accepted": bargain.accepted,
        "gain": bargain.gain,
        "first": float(law.chances[0]),
        "running": step.samples,
        "needed": law.needed(step, draft.price.each),
    }
    measured = "in earlier runs {first:.0%} of its first tokens came true"
    if bargain.drafted:
        best = "with {running:,} rows running {most} a row at most are best: {drafted:.1f} on average, of which "
        return f"{measured}; {best}{{accepted:.1f}} come true, {{gain:.2f}} times the tokens in a second", facts
    if most:
        return f"{measured}; the pool has no room for proposals", facts
    if float(facts["needed"]) >= 1:
        return f"{measured}; with {{running:,}} rows running not even right ones would pay", facts
    return f"{measured}; with {{running:,}} rows running it would take {{needed:.0%}} to pay", facts
