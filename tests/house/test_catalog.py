"""The catalogue is true: every row names a module that exists, a paper, and what takes it; every choice has a row."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace

import pytest

from tests.house.source import imports, modules
from umbel import catalog
from umbel.catalog import CATALOG, WITHOUT_OPTION, Technique
from umbel.config import CHOICES, EngineConfig
from umbel.errors import UsageError
from umbel.plan.planner import PASSES

EACH = pytest.mark.parametrize("row", CATALOG, ids=lambda row: f"{row.family}: {row.name}")
NO_TECHNIQUES = {"dtype", "load_format"}  # what weights are read as, from where
NOTHING = {"auto", "dense", "none"}  # values that leave out what the option is about
LOSSY = {"linear=int8", "linear=int4", "linear=fp8", "kv_cache_dtype=fp8"}  # written out once more, on purpose


def test_rows_point_at_code() -> None:
    assert not [row for row in CATALOG if f"umbel.{row.module}" not in modules()]


def test_rows_name_their_paper() -> None:
    assert not [row for row in CATALOG if not re.search(r"\b\d{4}\.\d{5}\b", row.paper)]


def test_rows_are_unique() -> None:
    assert len({(row.family, row.name) for row in CATALOG}) == len(CATALOG)
    settings = [row.option for row in CATALOG if row.option[0]]
    assert len(set(settings)) == len(settings)


def config_taking(row: Technique) -> EngineConfig:
    """Settings that differ from the default in the option of a row alone."""
    name, value = row.option
    asked = int(value) if isinstance(getattr(EngineConfig("demo"), name), int) else value
    return EngineConfig("demo", allow_lossy=True, **{name: asked})


def chooses(row: Technique) -> bool:
    """Whether something can take the technique of a row, in the way that the row says."""
    if row.option[0]:
        known = {field.name for field in fields(EngineConfig)}
        return row.option[0] in known and row.taken_by(config_taking(row))  # raises for a value that is not known
    if row.by == "planner":
        return row.family in PASSES and row.exact
    if row.by == "simulation":
        return row.exact and row.name in _texts("umbel.sim.policies")
    return row.by in WITHOUT_OPTION and row.exact and f"umbel.{row.module}" in reachable_from("umbel.api")


def reachable_from(start: str) -> set[str]:
    """All modules that a module imports, directly or not."""
    found, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name not in found and name in imports():
            found.add(name)
            todo += imports()[name]
    return found


@EACH
def test_every_technique_can_be_taken(row: Technique) -> None:
    assert chooses(row)


@pytest.mark.parametrize("by", ["no_such_option=1", "planner", "simulation", "always", "machine", "somehow"])
def test_a_technique_that_cannot_be_taken_is_noticed(by: str) -> None:
    assert not chooses(Technique("decoding", "telepathy", True, "no.such.module", "2501.00001", by=by))


def test_a_value_that_the_option_does_not_have_is_noticed() -> None:
    with pytest.raises(UsageError, match="linear='int3': must be one of"):
        chooses(Technique("linear", "int3", False, "linear.int8", "2501.00001", by="linear=int3"))


def test_every_value_of_an_option_has_its_row() -> None:
    """So that a new value cannot be forgotten where plans and reports say whether they are exact."""
    values = {(name, v) for name, allowed in CHOICES.items() if name not in NO_TECHNIQUES for v in allowed}
    assert {(name, v) for name, v in values if v not in NOTHING} <= {row.option for row in CATALOG}


def test_what_is_lossy_is_off_unless_asked_for() -> None:
    """Twice: by name, and by the word that answers may change."""
    assert {row.by for row in CATALOG if not row.exact} == LOSSY
    assert EngineConfig("demo").lossy == ()
    for by in LOSSY:
        name, _, value = by.partition("=")
        with pytest.raises(UsageError, match=rf"{name}='{value}'.*allow-lossy"):
            EngineConfig("demo", **{name: value})
        assert EngineConfig("demo", allow_lossy=True, **{name: value}).lossy == (f"{name}={value!r}",)


def test_lossy_settings_are_read_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that becomes lossy makes the settings lossy that take it, and the default with them."""
    rows = tuple(replace(row, exact=False) if row.by == "admission=past-future" else row for row in CATALOG)
    monkeypatch.setattr(catalog, "CATALOG", rows)
    with pytest.raises(UsageError, match="admission='past-future' may change answers"):
        EngineConfig("demo")
    assert EngineConfig("demo", admission="headroom").lossy == ()


def _texts(name: str) -> set[str]:
    return {
        node.value
        for node in ast.walk(modules()[name].tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
