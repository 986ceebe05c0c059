"""What earlier runs measured of a model on a machine: how long its answers are, and how long its steps take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from umbel.cost.calibration import Calibration
from umbel.cost.draft_law import DraftLaw
from umbel.cost.drafts import Offers
from umbel.cost.lengths import LengthCurve
from umbel.ir.kv_blocks import StoredKV


def _nothing() -> Mapping[str, LengthCurve]:
    return MappingProxyType({})


def _no_offers() -> Mapping[str, Offers]:
    return MappingProxyType({})


def _no_laws() -> Mapping[str, Mapping[str, DraftLaw]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Known:
    """The history of a model on a machine, as a record.

    `lengths`: output lengths by template (as in ir.plan.Plan.templates; "" for all rows together).
    `calibration`: measured seconds of steps; None where there are none.
    `offers`: tokens that the batch proposed to itself, by template, and their chances ("" for all rows together).
    `laws`: what came true of each drafter's tokens, by the drafter's name and template.
    `stored`: KV of prompts that earlier jobs kept; None where none is asked for.
    """

    lengths: Mapping[str, LengthCurve] = field(default_factory=_nothing)
    calibration: Calibration | None = None
    offers: Mapping[str, Offers] = field(default_factory=_no_offers)
    laws: Mapping[str, Mapping[str, DraftLaw]] = field(default_factory=_no_laws)
    stored: StoredKV | None = None
