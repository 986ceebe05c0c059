"""Which kind of source a path is."""

from __future__ import annotations

from pathlib import Path

from umbel.models.sources.base import ModelSource
from umbel.models.sources.directory import Directory


def source_at(path: Path) -> ModelSource:
    """The model at a path that `resolve_model` gave; nothing is read yet."""
    return Directory(path)
