"""All readers that are fuzzed: how a hostile input is made, and what must hold of reading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis.strategies import SearchStrategy

from tests.fuzz import inputs, models, templates

READERS: dict[str, tuple[SearchStrategy[Any], Callable[[Any], None]]] = {
    **inputs.READERS,
    **models.READERS,
    **templates.READERS,
}
