"""Soft prompts: positions before the tokens of rows whose adapter fills them, with keys and values or with embeddings.

They are run as tokens that rows of one scope share, so that what is planned, held and read of prompts holds for them:
the same beginning of all rows of an adapter, computed once and kept while one of them needs it. What is computed for
them is replaced (`models/adapters/given.py`), and their token ids are never shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.adapter import Adapter
from umbel.ir.columns import runs
from umbel.ir.limits import refuse
from umbel.ir.params import SamplingParams
from umbel.ir.workload import ADAPTER, Workload

TOKEN = 0  # that stands for a position of a soft prompt


@dataclass(frozen=True, slots=True)
class SoftPrompts:
    """How many positions the soft prompt of each scope has (`places`, by `names` of adapters), 0 for other adapters."""

    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    @classmethod
    def of(cls, adapters: Sequence[Adapter]) -> SoftPrompts:
        """Those among the adapters of a model."""
        return cls(tuple(a.name for a in adapters), tuple(a.places for a in adapters)) if adapters else cls()

    def before(self, params: SamplingParams) -> int:
        """Positions before the prompt of a row."""
        return self.places[self.names.index(params.lora)] if params.lora in self.names else 0

    def check(self, params: SamplingParams) -> None:
        """Raise InvalidRequest for a row that wants what is not given behind a soft prompt."""
        if params.pooling_params is not None and self.before(params):
            why = "its soft prompt is for models that write; vectors are given without it"
            refuse("unsupported_parameter", "lora", f"lora={params.lora!r:.80} with pooling_params: {why}")

    def by_row(self, scope: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Positions before the prompts of rows of these scopes (`[rows]`); None where no row has any."""
        if scope is None or not any(self.places):
            return None
        adapter = scope & ADAPTER
        by_scope = np.zeros(int(adapter.max(initial=0)) + 1 + len(self.places), np.int64)  # of those added since: none
        by_scope[1 : 1 + len(self.places)] = self.places
        found = by_scope[adapter]
        return found if found.any() else None

    def put_before(self, load: Workload) -> Workload:
        """The rows with their soft prompts as tokens."""
        given = self.by_row(load.scope)
        if given is None:
            return load
        lengths = np.diff(load.offsets)
        offsets = np.append(0, np.cumsum(lengths + given))
        tokens = np.full(int(offsets[-1]), TOKEN, np.int32)
        tokens[runs(offsets[:-1] + given, lengths)] = load.tokens
        return replace(load, tokens=tokens, offsets=offsets)


NO_SOFT = SoftPrompts()
"""Of a model without adapters."""
