"""The techniques of an engine that its rows may leave out."""

from __future__ import annotations

from umbel import registry
from umbel.config import EngineConfig
from umbel.ir.row_techniques import RowTechniques


def techniques_of(config: EngineConfig) -> RowTechniques:
    """Find which of those that were asked for rows may leave out."""
    return RowTechniques(registry.for_rows("technique", config.technique))
