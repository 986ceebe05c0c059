"""Rows that are added to a loop together, with all that decides how they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.ir.plan import Plan
from umbel.ir.pooling import WRITER, Pooler
from umbel.ir.row_techniques import ALL_ROWS, RowTechniques
from umbel.ir.soft_prompt import NO_SOFT, SoftPrompts
from umbel.ir.workload import TENANT, Workload

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

ENDLESS = 1 << 40  # tokens; a context that no prompt reaches


@dataclass(frozen=True, slots=True)
class Standing:
    """How rows stand among those of others (`[rows]`): `priority`, of which lower ones go first, whose they are
    (`tenant`), and when the prompt of each has to be begun at the latest (`due`, in seconds of any clock)."""

    priority: Ints
    tenant: Ints
    due: NDArray[np.float64]

    @classmethod
    def alike(cls, count: int, priority: int = 0, tenant: int = 0, due: float = 0.0) -> Standing:
        """Rows that stand alike."""
        return cls(np.full(count, priority), np.full(count, tenant), np.full(count, due))

    def apart(self, load: Workload) -> Workload:
        """The rows, which share KV with no other tenant's."""
        scope = np.zeros(len(load), np.int64) if load.scope is None else load.scope
        return replace(load, scope=scope | self.tenant * TENANT) if self.tenant.any() else load


@dataclass(frozen=True, slots=True)
class Lot:
    """Rows to add: `workload` and its `forest`.

    Per row: `end_ids` (tokens that end it, not before its `min_tokens`), `limits` (tokens that each of its samples may
    generate), `groups` (which of `templates` it answers like; None: all alike), `same_as` (the row of the lot whose
    answer it gets; None: every row runs), `streamed` (it wants its tokens as they come; None: no row does), `lockstep`
    (its next tokens are not scheduled before its last ones are known; None: of no row), `streams` (what keys its draws;
    None: its seed or its key), `first_sample` (the number of its first sample; None: 0), `means` (it wants the mean of
    its prompt's states; None: no row does), `standing` (None: all alike), `places` (tokens at the beginning of its
    prompt that stand for a soft prompt; None: none), `whole` (what it draws is computed without the techniques that
    others have; None: no row is). `order` lists the rows to run (None: all, as a walk of the forest
    meets them). Rows without a seed of their own draw by `seed`.
    """

    workload: Workload
    forest: Forest
    end_ids: Sequence[tuple[int, ...]]
    limits: Ints
    order: Ints | None = None
    groups: Ints | None = None
    templates: tuple[str, ...] = ("",)
    same_as: Ints | None = None
    streamed: Flags | None = None
    lockstep: Flags | None = None
    streams: Ints | None = None
    first_sample: Ints | None = None
    seed: int = 0
    means: Flags | None = None
    standing: Standing | None = None
    places: Ints | None = None
    whole: Flags | None = None

    @property
    def row_groups(self) -> Ints:
        """The group of every row (`[rows]`)."""
        return np.zeros(len(self.workload), np.int64) if self.groups is None else self.groups


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a row says nothing: the engine's `seed`, the model's end tokens (`eos`), its `context` (the most
    tokens of a prompt and its answer together), its vocabulary (`width`; None: not known), what makes vectors, the
    `soft` prompts of its adapters, and the `techniques` that rows may leave out."""

    seed: int = 0
    eos: tuple[int, ...] = ()
    context: int = ENDLESS
    width: int | None = None
    pooler: Pooler = WRITER
    soft: SoftPrompts = NO_SOFT
    techniques: RowTechniques = ALL_ROWS

    def lot(self, workload: Workload, plan: Plan, streamed: Flags | None = None) -> Lot:
        """A workload as its plan runs it."""
        workload = self.techniques.put_apart(self.soft.put_before(workload))
        return Lot(
            workload,
            plan.forest,
            self.end_ids(workload),
            workload.longest_answers(self.context),
            order=plan.order,
            groups=plan.groups,
            templates=plan.templates,
            same_as=plan.same_as,
            streamed=streamed,
            seed=self.seed,
            means=self.means(workload),
            places=self.soft.by_row(workload.scope),
            whole=self.techniques.left(workload.params, prompts=False),
        )

    def means(self, workload: Workload) -> Flags | None:
        """Which rows want the mean of their states, None where none does."""
        wanted = lambda p: p.pooling_params is not None and self.pooler.is_mean(p.pooling_params)  # noqa: E731
        found = Distinct.of(workload.params).flags(wanted)
        return found if found.any() else None

    def end_ids(self, workload: Workload) -> list[tuple[int, ...]]:
        """Tokens that end each row: its own stop ids, and the model's end tokens unless it ignores them."""
        params = Distinct.of(workload.params)
        each = [p.stop_token_ids + (() if p.ignore_eos else self.eos) for p in params.objects]
        return [each[i] for i in params.which.tolist()]
