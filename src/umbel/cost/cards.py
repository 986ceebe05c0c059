"""Machines by name: this one, and accelerators as their makers describe them, one or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from umbel.cost.machine import Machine, gpu, this_machine
from umbel.errors import UsageError, nearest

MOST_CARDS = 1024


@dataclass(frozen=True, slots=True)
class Card:
    """Figures of a data sheet: TFLOP/s of dense (not sparse) products in float32 outside the matrix units and in
    bfloat16, GB/s and GB of memory (powers of ten), and the sheet's name."""

    tflops: float
    tflops_16: float
    gb_per_second: float
    gb: int
    sheet: str


CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "h200": Card(67, 989, 4800, 141, "NVIDIA H200 data sheet (SXM)"),
        "h100": Card(67, 989, 3350, 80, "NVIDIA H100 data sheet (SXM)"),
        "a100": Card(19.5, 312, 2039, 80, "NVIDIA A100 data sheet (80 GB, SXM)"),
        "a100-40gb": Card(19.5, 312, 1555, 40, "NVIDIA A100 data sheet (40 GB, SXM)"),
        "l40s": Card(91.6, 362, 864, 48, "NVIDIA L40S data sheet"),
        "l4": Card(30.3, 121, 300, 24, "NVIDIA L4 data sheet"),
        "a10": Card(31.2, 125, 600, 24, "NVIDIA A10 data sheet"),
        "rtx4090": Card(82.6, 165.2, 1008, 24, "NVIDIA Ada architecture paper (GeForce RTX 4090)"),
    }
)
NAMES = ("this", *CARDS)


def card(name: str) -> Machine:
    """The ceilings of one accelerator of `CARDS`."""
    found = CARDS[name]
    rate, n_bytes = found.gb_per_second * 1e9, found.gb * 10**9
    return gpu(name, found.tflops * 1e12, found.tflops_16 * 1e12, rate, n_bytes, found.sheet)


def named(name: str) -> Machine:
    """A machine by its name in `NAMES`; "this" is measured, today or now. Raises UsageError on another."""
    if name not in NAMES:
        several = "" if "x" not in name else ", or several such as 2xh100"
        raise UsageError(f"machine={name!r}: must be one of {', '.join(NAMES)}{several}{nearest(name, NAMES)}")
    return this_machine() if name == "this" else card(name)


def counted(name: str) -> tuple[int, str]:
    """How many cards a name asks for, and of which kind: "2xh100" are two. Raises UsageError for an impossible
    number."""
    count, cross, kind = name.partition("x")
    if not (cross and count.isdecimal() and count.isascii()):
        return 1, name
    if not 1 <= int(count[:5]) <= MOST_CARDS or kind == "this":
        raise UsageError(f"machine={name!r}: give 1 to {MOST_CARDS} accelerators, such as 2xh100")
    return int(count), kind
