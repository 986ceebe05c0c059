"""The machine that a plan is for, and plans of rows for it: for as many replicas as asked, or another number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.config import EngineConfig
from umbel.errors import UsageError

if TYPE_CHECKING:
    from umbel.cost.machine import Machine
    from umbel.ir.plan import Plan
    from umbel.ir.spec import ModelSpec
    from umbel.ir.workload import Workload


@dataclass(frozen=True, slots=True)
class Target:
    """What one replica plans for: its `config`, and the `machine` or the part of it that it has; it is one of those
    that were `asked` for, on the kind of machine of that `name`, spread over so many `machines`."""

    config: EngineConfig
    machine: Machine
    asked: EngineConfig
    name: str
    machines: int

    def of_count(self, replicas: int) -> Target:
        """The same for another number of replicas."""
        return target_at(replace(self.asked, data_parallel_size=replicas), self.name, self.machines)


def target_at(config: EngineConfig, name: str, machines: int = 1) -> Target:
    """The machine that one replica plans for, on as many devices of the machine `name` as it has, and its settings.

    Replicas are spread over so many `machines`, and those on one share its processor. Several accelerators hold a part
    of every layer each, where the settings do not say how they are used.
    """
    from umbel.batch.devices import machine_here
    from umbel.cost.cards import counted, named
    from umbel.cost.devices import joined, shared_by, threads_of_each

    count, kind = counted(name)
    used = config.tensor_parallel_size * config.data_parallel_size
    asked = config
    if used == 1:
        config = replace(config, tensor_parallel_size=count)
    elif count not in (1, used):
        raise UsageError(f"--machine {name}: --tensor-parallel-size times --data-parallel-size is {used}, not {count}")
    beside = -(-config.data_parallel_size // max(machines, 1))
    found = machine_here(config.device) if kind == "this" else named(kind)
    machine = joined(shared_by(found, beside), config.tensor_parallel_size)
    if beside > 1 and not machine.on_gpu:
        config = replace(config, threads=threads_of_each(config.threads, beside))
    return Target(config, machine, asked, kind, machines)


@dataclass(slots=True)
class Planning:
    """Plans the rows of a job as a run would, with the history of earlier runs."""

    workload: Workload
    spec: ModelSpec
    directory: Path | None
    _whole: tuple[EngineConfig, Machine, Plan] | None = None

    def plan(self, target: Target) -> Plan:
        """The plan for a number of replicas. That of all rows is made once for those that plan for the same machine."""
        from umbel.cost.history import History
        from umbel.plan.deal.shared_plan import plan_replicas
        from umbel.plan.planner import make_plan

        config, machine = target.config, target.machine
        alone = replace(config, data_parallel_size=1, executor="local", ray_address=None, mixed_replicas=False)
        chosen = replace(alone, dtype=machine.choose_dtype(config.dtype, self.spec.dtype))
        known = History.of(self.spec, self.directory, chosen.cost_key, machine, config.threads).load()
        if config.kv_dir is not None and self.directory is not None and target.name == "this":
            from umbel.engine.shelving import stored_kv  # which loads torch

            known = replace(known, stored=stored_kv(chosen, self.spec, self.directory))
        make = partial(make_plan, spec=self.spec, config=alone, machine=machine, known=known)
        if self._whole is None or self._whole[:2] != (alone, machine):
            self._whole = (alone, machine, make(self.workload))
        whole, count = self._whole[2], config.data_parallel_size
        if not config.replicated:
            return whole
        return plan_replicas(self.workload, count, make, whole=whole, mixed=config.mixed_replicas)
