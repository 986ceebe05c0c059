"""One question to the simulator: which rows, with which real lengths of answers, on which model and machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.known import Known
from umbel.cost.machine import Machine
from umbel.cost.quantised import price_of
from umbel.cost.roofline import Price
from umbel.ir.forest import Forest
from umbel.ir.plan import Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.plan.planner import make_plan
from umbel.sched.lot import Defaults
from umbel.sim.forests import in_pieces, whole_blocks
from umbel.sim.runner import END

Ints = NDArray[np.int64]

PIECE = 256  # tokens of a shared run that an LRU cache loses at a time, in whole blocks


class SimCase:
    """A workload with its true `lengths` (`[rows]`; None: as the plan assumes), a model and a machine.

    The plan and the forests, which the policies have in common, are worked out once.
    """

    def __init__(
        self,
        workload: Workload,
        spec: ModelSpec,
        machine: Machine,
        config: EngineConfig,
        lengths: Ints | None = None,
        known: Known | None = None,
    ):
        self.workload = workload
        self.spec = spec
        self.machine = machine
        self.config = config
        self.known = known or Known()
        self._lengths = lengths

    def planned(self, **changes: object) -> Plan:
        """The plan, with some settings changed."""
        return self.plan_of(self.workload, **changes)

    def plan_of(self, workload: Workload, **changes: object) -> Plan:
        """A plan for other rows, with some settings changed."""
        config = replace(self.config, **changes)  # type: ignore[arg-type]
        return make_plan(workload, self.spec, config, self.machine, known=self.known)

    @cached_property
    def plan(self) -> Plan:
        """Our own plan for these rows."""
        return self.planned()

    @cached_property
    def lengths(self) -> Ints:
        """Tokens that each sample of a row generates (`[rows]`): its limit where nothing ends it before."""
        given = self.plan.lengths if self._lengths is None else self._lengths
        ends = np.array([bool(ids) for ids in self.defaults.end_ids(self.workload)], bool)
        return np.where(ends, np.clip(given, 1, self.limits), self.limits)

    @cached_property
    def limits(self) -> Ints:
        """Tokens that each sample of a row may say (`[rows]`): its `max_tokens`, or what the context leaves."""
        return self.workload.longest_answers(self.spec.max_positions)

    @property
    def defaults(self) -> Defaults:
        """What holds where rows say nothing: answers end with the simulated end token, unless they ignore it."""
        return Defaults(self.config.seed, (END,), self.spec.max_positions)

    @cached_property
    def price(self) -> Price:
        """The price of steps, in the dtype that the plan decides."""
        dtype = str(self.plan.decision("dtype").value)
        return price_of(self.spec, replace(self.config, dtype=dtype), self.machine, self.known.calibration)

    @cached_property
    def forest(self) -> Forest:
        """The forest of all sharing, token by token."""
        return build_forest(self.workload)

    @cached_property
    def blocks(self) -> Forest:
        """The forest of the sharing that a cache of whole blocks finds, in the pieces that it evicts at a time."""
        page = self.config.page_size
        return in_pieces(whole_blocks(self.forest, page), max(PIECE // page, 1) * page)

    @cached_property
    def sorted_rows(self) -> Ints:
        """The rows by their prompts in lexicographic order."""
        workload = self.workload
        keys = [workload.prompt(row).astype(">u4").tobytes() for row in range(len(workload))]
        return np.array(sorted(range(len(workload)), key=keys.__getitem__), np.int64)
