"""Adapters of a model, of which each row may name one: their shape, and how rows are told apart by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InvalidRequest
from umbel.ir.distinct import Distinct
from umbel.ir.limits import shown
from umbel.ir.params import SamplingParams

KEPT_BYTES = 2**30
"""Adapters stay in memory up to so many bytes, and at least two of them: one that rows read, and the next."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one product of ours (`name` as in `models/weights.py`): of its `inputs`, `rank` numbers
    of all parts together, and of those of each part what is added to its share of the `outputs`, by matrices of
    `outer` numbers."""

    name: str
    inputs: int
    rank: int
    outputs: int
    outer: int

    @property
    def weights(self) -> int:
        """Numbers in its matrices."""
        return self.rank * self.inputs + self.outer


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as it lies in `directory`: of low rank (LoRA, 2106.09685), or a soft prompt. `ranks` are the smallest
    and the largest of its modules, `digest` is of its files.

    A soft prompt stands before every prompt of its rows, in `places` positions: as keys and values of every layer
    (prefix tuning, P-Tuning v2, 2110.07602), or as embeddings; these are its `numbers`.
    """

    name: str
    directory: str
    digest: str
    ranks: tuple[int, int]
    products: tuple[LowRank, ...]
    places: int = 0
    numbers: int = 0

    @property
    def weights(self) -> int:
        """Numbers in all of its matrices."""
        return sum(product.weights for product in self.products) + self.numbers

    @property
    def token_flops(self) -> int:
        """Multiplications and additions for a token."""
        return 2 * sum(product.weights for product in self.products)


def names_of(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """What rows call them."""
    return tuple(adapter.name for adapter in adapters)


def digests_of(adapters: Sequence[Adapter]) -> dict[str, str]:
    """What tells them from others of the same names, as parts of a job's identity."""
    return {f"lora.{adapter.name}": adapter.digest for adapter in adapters}


def kept_bytes(adapters: Sequence[Adapter], width: int) -> int:
    """Memory that adapters take at most, in numbers of `width` bytes: all of them, unless that is much."""
    sizes = [adapter.weights * width for adapter in adapters]
    return min(sum(sizes), max(KEPT_BYTES, 2 * max(sizes, default=0)))


def check_adapter(name: str, names: Sequence[str]) -> None:
    """Raise InvalidRequest for an adapter that is not among those of the job."""
    if name not in names:
        known = f"there are {', '.join(names)}" if names else "there is none"
        message = f"lora {shown(name)} is not loaded: {known}; --lora {name:.40}=DIR (lora= in Python) adds it"
        raise InvalidRequest("model_not_found", message, "lora", status=404)


def scopes_of(params: Sequence[SamplingParams], names: Sequence[str]) -> NDArray[np.int64] | None:
    """What the KV of rows depends on (`Workload.scope`): the number of the adapter that each asks for, from 1 on in the
    order of `names`, 0 for none of them. None where there are no adapters."""
    if not names:
        return None
    number = {name: i for i, name in enumerate(names, 1)}
    return Distinct.of(params).column(lambda p: 0 if p.lora is None else number[p.lora]).astype(np.int64)
