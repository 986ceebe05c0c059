"""Puts a loop together for a plan, whatever runs its steps: a device, a simulated one, a test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook, LengthCurve
from umbel.cost.meter import Meter
from umbel.engine.loop import Loop
from umbel.engine.watch.watchers import Make
from umbel.ir.plan import Plan
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.workload import Workload
from umbel.runner.base import Runner
from umbel.sched.lot import Defaults
from umbel.sched.phases.speculate import Speculate
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler
from umbel.text.tokenizer import Tokenizer


def make_loop(  # noqa: PLR0913 (the parts of an engine)
    workload: Workload,
    plan: Plan,
    runner: Runner,
    tokenizer: Tokenizer | None = None,
    *,
    defaults: Defaults | None = None,
    policy: Policy | None = None,
    known: Mapping[str, LengthCurve] | None = None,
    meter: Meter | None = None,
    spans: Spans = NO_SPANS,
    watchers: Sequence[Make] | None = None,
    speculate: Speculate | None = None,
) -> Loop:
    """The loop that runs a workload by its plan, with a pool of the plan's size; more rows may be added to it.

    `defaults` fill in what rows leave open, `policy` replaces the plan's rules, `known` are lengths of earlier answers
    by template, `watchers` look at what samples draw, in this order (None: those of the
    catalogue), `speculate` has tokens proposed.
    """
    loop = Loop(make_scheduler(plan, policy, known, speculate), runner, tokenizer, defaults, meter, spans, watchers)
    loop.add(workload, plan)
    return loop


def policy_of(plan: Plan) -> Policy:
    """The rules of a plan."""
    return Policy(admission=plan.admission, step_cost=plan.step_cost)


def make_scheduler(
    plan: Plan,
    policy: Policy | None = None,
    known: Mapping[str, LengthCurve] | None = None,
    speculate: Speculate | None = None,
) -> Scheduler:
    """The scheduler that a plan asks for, without rows."""
    pool = PagePool(plan.kv_pages, plan.page_size, has_states=plan.has_states)
    return Scheduler(pool, plan.chunk, policy or policy_of(plan), LengthBook(known), speculate)
