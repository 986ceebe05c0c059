"""The catalogue is true: every row names a module that exists, a paper, and what takes it; every choice has a row."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace

import pytest

from tests.house.source import ROOT, imports, modules
from umbel import catalog, registry
from umbel.catalog import CATALOG
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.left_out import LEFT_OUT
from umbel.plan.planner import PASSES
from umbel.sched.policies.policy import Policy
from umbel.technique import NONE, OPEN, OPTIONS, WITHOUT_OPTION, Technique

EACH = pytest.mark.parametrize("row", CATALOG, ids=lambda row: f"{row.family}: {row.name}")
DEFINED = (ast.ClassDef, ast.FunctionDef)
LOSSY = {
    "linear=int8",
    "linear=int4",
    "linear=int4-head8",
    "linear=fp8",
    "kv_cache_dtype=fp8",
    "kv_cache_dtype=int8",
    "technique=lag-kv",
    "technique=sage-kv",
    "technique=h2o",
    "technique=pages",
    "technique=sink-window",
    "technique=streaming",
    "technique=vertical-slash",
    "technique=flex-prefill",
    "technique=a-shape",
    "technique=hip",
    "technique=criti-prefill",
    "technique=proxy-attn",
    "technique=streaming-heads",
    "technique=loop-serve",
    "technique=swiftkv",
    "technique=turbo-rag",
    "technique=spec-prefill",
    "technique=skip-decode",
}  # written out once more, on purpose


def test_rows_point_at_code() -> None:
    """To a module, and to a class or function that is defined in it."""
    for module, names in (row.loads.split(":") for row in CATALOG):
        body = modules()[module].tree.body
        for name in names.split("."):
            found = [node for node in body if isinstance(node, DEFINED) and node.name == name]
            assert found, (module, names)
            body = found[0].body


def test_rows_name_their_paper() -> None:
    """Except what samples are watched for, which users ask of any engine."""
    published = [row for row in CATALOG if row.family != "watcher"]
    assert not [row for row in published if not re.search(r"\b\d{4}\.\d{5}\b", row.paper)]


def test_rows_are_unique() -> None:
    assert len({(row.family, row.name) for row in CATALOG}) == len(CATALOG)
    settings = [row.option for row in CATALOG if row.option[0]]
    assert len(set(settings)) == len(settings)


def config_taking(row: Technique) -> EngineConfig:
    """Settings that differ from the default in the option of a row alone."""
    name, value = row.option
    usual = getattr(EngineConfig("demo"), name)
    asked = int(value) if isinstance(usual, int) else (value,) if isinstance(usual, tuple) else value
    return EngineConfig("demo", allow_lossy=True, **{name: asked})


def chooses(row: Technique) -> bool:
    """Whether something can take the technique of a row, in the way that the row says."""
    if row.option[0]:
        known = {field.name for field in fields(EngineConfig)}
        return row.option[0] in known and row.taken_by(config_taking(row))  # raises for a value that is not known
    if row.by == "planner":
        return row.family in PASSES and row.exact
    if row.by == "policy":
        return row.exact and row.family in {f.name for f in fields(Policy)} and bool(Policy(**{row.family: row.name}))
    reached = row.family in OPEN or row.loads.split(":")[0] in reachable_from("umbel.api")
    return row.by in WITHOUT_OPTION and row.exact and reached


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


@pytest.mark.parametrize("by", ["no_such_option=1", "planner", "policy", "always", "machine", "somehow", ""])
def test_a_technique_that_cannot_be_taken_is_noticed(by: str) -> None:
    assert not chooses(Technique("decoding", "telepathy", True, "no.such.module:Reader", "2501.00001", by=by))


@pytest.mark.parametrize("by", ["", "linear=int3"])
def test_a_value_that_the_option_does_not_have_is_noticed(by: str) -> None:
    with pytest.raises(UsageError, match="linear='int3': must be one of"):
        chooses(Technique("linear", "int3", False, "umbel.linear.int8:Int8Method", "2501.00001", by=by))


def test_every_value_of_an_option_is_a_row_s_or_takes_none() -> None:
    for option in OPTIONS.values():
        taking = [row.option[1] for row in CATALOG if row.option[0] == option]
        assert list(registry.values(option)) == [*NONE.get(option, ()), *taking]
        assert [registry.at(option, value).option[1] for value in taking] == taking
        assert not any(registry.at(option, value) for value in NONE.get(option, ()))


def test_what_is_lossy_is_off_unless_asked_for() -> None:
    """Twice: by name, and by the word that answers may change."""
    assert {"=".join(row.option) for row in CATALOG if not row.exact} == LOSSY
    assert EngineConfig("demo").lossy == ()
    for by in LOSSY:
        name, _, value = by.partition("=")
        with pytest.raises(UsageError, match=rf"{name}='{value}'.*allow-lossy"):
            EngineConfig("demo", **{name: value})
        assert EngineConfig("demo", allow_lossy=True, **{name: value}).lossy == (f"{name}={value!r}",)


def test_lossy_settings_are_read_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that becomes lossy makes the settings lossy that take it, and the default with them."""
    rows = tuple(replace(row, exact=False) if row.name == "past-future" else row for row in CATALOG)
    monkeypatch.setattr(catalog, "CATALOG", rows)
    with pytest.raises(UsageError, match="admission='past-future' may change answers"):
        EngineConfig("demo")
    assert EngineConfig("demo", admission="headroom").lossy == ()


# Where the rows of a family are all held to the same laws: tests that run over the catalogue's names.
LAWS = {
    "admission": "tests/conformance/test_admission.py",
    "queue": "tests/conformance/test_policies.py",
    "keep": "tests/conformance/test_keep.py",
    "victim": "tests/conformance/test_policies.py",
    "linear": "tests/conformance/test_linear.py",
    "attention": "tests/attention/stage.py",
    "watcher": "tests/conformance/test_watcher.py",
    "drafter": "tests/conformance/test_drafter.py",
}


@pytest.mark.parametrize("family", OPEN)
def test_families_that_may_grow_have_tests_that_grow_with_them(family: str) -> None:
    """The names that the tests run over are asked of the registry, not written down."""
    text = (ROOT / LAWS[family]).read_text(encoding="utf-8")
    shared = (ROOT / "tests" / "sched" / "drive.py").read_text(encoding="utf-8")
    texts = text + shared * ("tests.sched.drive import OFTEN, RARELY" in text)
    assert f'registry.names("{family}")' in texts or f'registry.rows("{family}")' in texts
    assert registry.names(family) == tuple(row.name for row in CATALOG if row.family == family)


@pytest.mark.parametrize("row", LEFT_OUT, ids=lambda row: row.name)
def test_what_is_left_out_is_refused_with_the_reason(row: Technique) -> None:
    """By the option of its family, which does not list it, also where lossy techniques may be used."""
    assert not row.exact and re.search(r"\b\d{4}\.\d{5}\b", row.paper) and not row.loads
    option, value = row.option
    assert value not in registry.values(option)
    with pytest.raises(UsageError, match=re.escape(f"{option}={value!r} is off: it {row.why_not}")):
        EngineConfig("demo", allow_lossy=True, **{option: value})
