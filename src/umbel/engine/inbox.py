"""What a session was asked since its last step: rows that came, with how they stand among others, and rows to stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.config import EngineConfig
from umbel.cost.roofline import Load, Price
from umbel.errors import UsageError
from umbel.ir.selection import join
from umbel.ir.workload import Workload
from umbel.plan.reuse import reuses
from umbel.plan.session import SessionPlanner
from umbel.plan.walk.passing import passed_layers
from umbel.sched.lot import Defaults, Lot, Standing

MOST_URGENT, LEAST_URGENT = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Wish:
    """How the rows of a call stand among others: their `priority`, and their `tenant` (None: all that name none)."""

    priority: int = 0
    tenant: str | None = None

    def __post_init__(self) -> None:
        value = self.priority
        if isinstance(value, bool) or not isinstance(value, int) or not MOST_URGENT <= value <= LEAST_URGENT:
            raise UsageError(
                f"priority={value!r}: must be a whole number from {MOST_URGENT} (first) to {LEAST_URGENT} (last)"
            )
        if self.tenant is not None and (not isinstance(self.tenant, str) or not self.tenant):
            raise UsageError(f"tenant={self.tenant!r}: must be a text that is not empty, or None")


@dataclass(frozen=True, slots=True)
class Targets:
    """Seconds that a session aims at (None: as few as it takes, all in all): from a row's coming to its first token
    (`ttft`), and between tokens of rows that stream (`tbt`)."""

    ttft: float | None = None
    tbt: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("ttft_target", self.ttft), ("tbt_target", self.tbt)):
            if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
                raise UsageError(f"{name}={value!r}: must be seconds above 0, or None")

    @property
    def queue(self) -> str:
        """The rule by which rows are next."""
        return "fair" if self.ttft is None else "deadline"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows that came together, keyed by ticket: whether they stream, how they stand, and when they came (seconds)."""

    workload: Workload
    streams: bool
    wish: Wish
    at: float


@dataclass(slots=True)
class Inbox:
    """Rows that have `arrived`, tickets whose rows are `leaving`, and the numbers of tenants, from 1 on."""

    targets: Targets
    planner: SessionPlanner
    arrived: list[Arrival] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)
    tenants: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_arriving(self.planner.draft.config)

    @property
    def waits(self) -> bool:
        """Whether there is anything to take in."""
        return bool(self.arrived or self.leaving)

    def put(self, workload: Workload, wish: Wish, *, streams: bool) -> None:
        """Rows came, keyed by ticket."""
        self.arrived.append(Arrival(workload, streams, wish, time.monotonic()))

    def empty(self) -> tuple[list[Arrival], list[int]]:
        """All that came, which is taken out."""
        arrived, leaving = self.arrived, self.leaving
        self.arrived, self.leaving = [], []
        return arrived, leaving

    def lot_of(self, arrived: Sequence[Arrival], defaults: Defaults) -> Lot:
        """Rows that start together, planned together."""
        load, sizes = join([one.workload for one in arrived]), [len(one.workload) for one in arrived]
        each = [self.standing(one.wish, np.diff(one.workload.offsets), one.at) for one in arrived]
        columns = ([getattr(one, name) for one in each] for name in ("priority", "tenant", "due"))
        stands = Standing(*map(np.concatenate, columns))
        load = defaults.techniques.keep_apart(stands.apart(load))
        streams = np.repeat([one.streams for one in arrived], sizes)
        return replace(defaults.lot(load, self.planner.lot(load), streams), standing=stands)

    def standing(self, wish: Wish, lengths: Sequence[int] | NDArray[np.int64], at: float | None = None) -> Standing:
        """How rows of some tokens stand that came then (None: now)."""
        number = 0 if wish.tenant is None else self.tenants.setdefault(wish.tenant, len(self.tenants) + 1)
        stands, ttft = Standing.alike(len(lengths), wish.priority, number), self.targets.ttft
        if ttft is None:
            return stands
        at = time.monotonic() if at is None else at
        return replace(stands, due=at + ttft - _prompt_seconds(self.planner.draft.price, np.asarray(lengths)))


def _prompt_seconds(price: Price, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds that prompts of some tokens take, each alone (`[prompts]`)."""
    one, size = np.ones(len(lengths)), lengths.astype(float)
    return price.each(Load(one, size, one, size * (size + 1) / 2, size))


def check_open(what: str, *, has_begun: bool, is_closed: bool) -> None:
    """Raise UsageError for what is asked of a session before its with block, or after it was closed."""
    if is_closed:
        raise UsageError(f"{what}: the session is closed; open another one")
    if not has_begun:
        raise UsageError(f"{what}: the session is not open yet; use it in a with block: with llm.session() as session")


def check_arriving(config: EngineConfig) -> None:
    """Raise UsageError for settings that cannot serve prompts which come while others run."""
    if registry.measure("technique", config.technique) is not None:
        why = "sessions keep prompts and answers for rows to come, and what a row has forgotten no other can read"
        raise UsageError(f"technique={config.technique[0]!r}: {why}; give all rows at once, or leave it out")
    for _, asked in registry.asked_of("prompt", config.technique):
        why = "sessions keep prompts for rows to come, and these have gaps"
        raise UsageError(f"technique={asked!r}: {why}; give all rows at once, or leave it out")
    price = passed_layers(config.technique)
    if price is not None and not price.leaves_keys:
        why = "sessions keep answers for rows to come, and theirs have no keys in layers that they did not pass"
        raise UsageError(f"technique={config.technique[0]!r}: {why}; give all rows at once, or leave it out")
    if asked := reuses(config):
        why = "sessions find the beginnings of rows to come by their tokens, whatever documents they have"
        raise UsageError(f"technique={asked!r}: {why}; give all rows at once, or leave it out")
