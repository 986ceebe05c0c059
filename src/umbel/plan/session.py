"""Plans a session: how much of the machine it takes before any row is known, then each lot of rows as it comes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from umbel.config import EngineConfig
from umbel.cost.known import Known
from umbel.cost.machine import Machine
from umbel.errors import CapacityError
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Decision, Estimates, Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.memory import kv_room
from umbel.plan.passes.page import choose_page
from umbel.plan.planner import chosen_passes, draft_of, plan_of

LOT_PASSES = ("prefix", "lengths")  # those that look at rows alone; each row runs, as each may be cancelled


@dataclass(frozen=True, slots=True)
class SessionPlanner:
    """What was decided for all rows to come (`draft`, and as `plan`)."""

    draft: PlanDraft
    plan: Plan

    @classmethod
    def of(cls, spec: ModelSpec, config: EngineConfig, machine: Machine, known: Known, asked: str) -> SessionPlanner:
        """Decide the step's tokens and the KV pool; arguments as in make_plan. Raises CapacityError when not one page
        fits the memory."""
        none = Workload.of([], SamplingParams())
        draft = draft_of(none, spec, config, machine, loaded=True, known=known, asked_dtype=asked)
        chunk = Decision(
            "chunk", draft.chunk, "as asked" if config.chunk else "the smallest that this machine is good at"
        )
        draft = draft.decide(chunk)
        draft = choose_page(draft) if spec.recurrences else draft
        pool = _pool(draft)
        draft = draft.decide(pool, kv_tokens=int(pool.value))
        return cls(draft, plan_of(draft, Estimates.none()))

    def lot(self, workload: Workload) -> Plan:
        """How rows that come together run beside those that are there: with the session's pool and steps, their own
        forest and order."""
        given = self.draft
        draft = PlanDraft.of(workload, given.spec, given.config, given.price)
        draft = replace(draft, known=given.known, chunk=given.chunk, kv_tokens=given.kv_tokens)
        for name, run in chosen_passes(given.config.skip):
            draft = run(draft) if name in LOT_PASSES else draft
        return replace(
            self.plan,
            forest=draft.forest,
            order=draft.order,
            lengths=draft.lengths,
            groups=draft.groups,
            templates=draft.templates,
            same_as=np.arange(len(workload)),
        )


def _pool(draft: PlanDraft) -> Decision:
    """As asked; else what memory allows, up to what a full step of rows can hold that fill the model's context."""
    page, config = draft.config.page_size, draft.config
    if config.kv_tokens is not None:
        return Decision("kv_tokens", config.kv_tokens, "as asked")
    room = kv_room(draft) // page * page
    if room < page:
        raise CapacityError(f"no memory is left for KV beside the weights: {room} tokens; free some, or set kv_tokens")
    most = draft.chunk * -(-draft.spec.max_positions // page) * page
    facts = {"rows_at_once": draft.chunk, "useful_tokens": most, "free_tokens": room}
    if most <= room:
        why = "{rows_at_once:,} rows of the model's context; memory allows {free_tokens:,}"
        return Decision("kv_tokens", most, why, facts=facts)
    why = "{kv_share:.0%} of the memory that weights leave, as the rows are not known; a full step could hold "
    why += "{useful_tokens:,}"
    return Decision("kv_tokens", room, why, facts={**facts, "kv_share": draft.price.machine.kv_fraction})
