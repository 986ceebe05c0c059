"""What attention kernels cost beside Triton's, by kind of work: numbers kept as data, empty until they are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class AttentionPrice:
    """Seconds of an attention kernel per second of the Triton kernel, by kind of work; None where not measured.

    `prefill`: prompts.
    `decode`: decoding rows that share nothing.
    `shared`: decoding rows below a shared run.
    `source`: where the figures come from.
    """

    prefill: float | None = None
    decode: float | None = None
    shared: float | None = None
    source: str = "not measured on a GPU yet"

    @property
    def worst(self) -> float:
        """The largest of the three factors, as most jobs have all kinds of work; infinite where one is not known."""
        kinds = (self.prefill, self.decode, self.shared)
        return max(math.inf if factor is None else factor for factor in kinds)


UNKNOWN = AttentionPrice()

PRICES: Mapping[str, AttentionPrice] = MappingProxyType(
    {"triton": AttentionPrice(1.0, 1.0, 1.0, "the measure of the others"), "flashinfer": UNKNOWN}
)
