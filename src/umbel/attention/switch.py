"""When a shared run gets a pass of its own on a GPU: a number fitted to measurements, kept as data beside this.

`python -m bench.gpu --only fit` measures and writes such a file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("switch.json")


@dataclass(frozen=True, slots=True)
class Switch:
    """`share_factor` as in `work.Cut`; whether it is `fitted`, to what (`source`), on which device and day."""

    share_factor: float
    fitted: bool
    source: str
    device: str | None
    date: str | None


def read_switch(path: Path) -> Switch:
    """The switch in a file; raises ValueError for one that is damaged."""
    try:
        found = Switch(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: no switch between passes ({error})") from None
    if not isinstance(found.share_factor, int | float) or not 0 <= found.share_factor < math.inf:
        raise ValueError(f"{path}: share_factor={found.share_factor!r} must be a number that is not negative")
    return found


@cache
def shipped_switch() -> Switch:
    """The one that comes with the package."""
    return read_switch(FILE)
