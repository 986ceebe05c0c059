"""The catalogue is true: every row names a module that exists and a paper, and no row is there twice."""

from __future__ import annotations

import re

import pytest

from tests.house.source import modules
from umbel.catalog import CATALOG
from umbel.config import EngineConfig
from umbel.errors import UsageError


def test_rows_point_at_code() -> None:
    assert not [row for row in CATALOG if row.module not in modules()]


def test_rows_name_their_paper() -> None:
    assert not [row for row in CATALOG if not re.search(r"\b\d{4}\.\d{5}\b", row.paper)]


def test_rows_are_unique() -> None:
    assert len({(row.family, row.name) for row in CATALOG}) == len(CATALOG)


def test_what_is_lossy_is_off_unless_asked_for() -> None:
    """Twice: by name, and by the word that answers may change."""
    lossy = {(row.family, row.name) for row in CATALOG if not row.exact}
    assert lossy == {("linear", "int8"), ("linear", "int4"), ("linear", "fp8"), ("kv", "fp8")}
    assert EngineConfig("demo").lossy == ()
    with pytest.raises(UsageError, match="allow-lossy"):
        EngineConfig("demo", linear="int8")
    with pytest.raises(UsageError, match=r"kv_cache_dtype='fp8'.*allow-lossy"):
        EngineConfig("demo", kv_cache_dtype="fp8")
