"""What the lab offers is what the catalogue calls lossy, and the tasks are those that have answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from umbel import catalog
from umbel.catalog import CATALOG
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.lab.offers import find_offers
from umbel.lab.tasks import USUAL, asked_task, find_tasks, rows_of
from umbel.technique import ShareSetting, Technique


def words(text: str) -> int:
    """Tokens, for tests: words and line ends."""
    return len(text.replace("\n", " \n ").split(" "))


def names(*asked: str, budgets: tuple[float, ...] = (0.5, 0.25)) -> list[str]:
    return [offer.name for offer in find_offers(asked, budgets)]


def test_everything_lossy_is_offered_and_can_be_asked_of_an_engine() -> None:
    offers = find_offers([], [0.5, 0.1])
    offered = {(offer.row.family, offer.row.name) for offer in offers}
    assert offered == {(row.family, row.name) for row in CATALOG if not row.exact and row.option[0]}
    for offer in offers:
        config = EngineConfig("demo", **offer.options())
        assert offer.row.taken_by(config) and config.lossy
    counts = {name: len([one for one in offers if one.row.name == name]) for name in ("pages", "sink-window", "fp8")}
    assert counts == {"pages": 2, "sink-window": 3, "fp8": 2}  # by budgets; by what its row says; products and KV


def test_a_row_that_others_add_is_offered_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Technique("select", "middle", False, "m:Middle", "2501.00001", settings=(ShareSetting("budget", 0.3, "of"),))
    exact = tuple(replace(row, exact=True) if row.name == "fp8" else row for row in CATALOG)
    monkeypatch.setattr(catalog, "CATALOG", (*exact, new))
    assert {"middle:budget=0.5", "middle:budget=0.25"} < set(names()) and not any("fp8" in one for one in names())


def test_offers_by_name() -> None:
    assert [offer.value for offer in find_offers(["flex-prefill"])] == [
        f"flex-prefill:mass={m}" for m in (0.99, 0.95, 0.8)
    ]
    assert names("int8") == ["linear int8", "kv int8"]
    assert names("linear=int8", "kv=fp8") == ["linear int8", "kv fp8"]
    assert names("pages", "vertical-slash:budget=0.3") == [
        *("pages:budget=0.5", "pages:budget=0.25"),
        "vertical-slash:budget=0.3",
    ]
    for asked, why in (
        ("pagse", "no lossy technique; did you mean 'pages'|no lossy technique.*pages"),
        ("forest", "no lossy technique"),
        ("pages:budget=7", "must be above 0 and at most 1"),
        ("pages:depth=1", "no setting of pages"),
    ):
        with pytest.raises(UsageError, match=why):
            names(asked)


@pytest.mark.parametrize("name", [*USUAL.split(","), "story", "passage-60", "lookup"])
def test_tasks_have_questions_that_dense_can_be_right_about(name: str) -> None:
    task = asked_task(name, 4, 0, words)
    texts = [chat["messages"][0]["content"] for chat in task.prompts]
    assert len(set(texts)) == 4 and not any(judge("no such answer") for judge in task.judges)
    assert task.prompts == asked_task(name, 4, 0, words).prompts != asked_task(name, 4, 1, words).prompts
    if name.startswith("lookup-2000"):
        assert all(1600 < words(text) < 2500 for text in texts)


def test_what_a_lookup_asks_for_stands_at_its_depth() -> None:
    for depth in (0.1, 0.5, 0.9):
        task = asked_task(f"lookup-600@{depth}", 6, 0, words)
        for chat, judge in zip(task.prompts, task.judges, strict=True):
            lines = chat["messages"][0]["content"].split("\n")[1:-2]
            places = [at / (len(lines) - 1) for at, line in enumerate(lines) if judge(value_of(line))]
            assert any(place == pytest.approx(depth, abs=0.03) for place in places)  # a value may stand twice


def value_of(line: str) -> str:
    """The value of a line of a lookup, whatever its form."""
    for mark in (" | ", " -> ", " = ", ": ", " is ", " has the "):
        if mark in line:
            end = line.rsplit(mark, maxsplit=1)[-1].rstrip(".")
            return end.split(" ", 1)[1] if mark == " has the " else end
    raise AssertionError(line)


def test_rows_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": "One and one?", "expected": "two", "max_tokens": 3},
        {"messages": [{"role": "user", "content": "Name it."}], "expected": ["lamp", "a lamp"]},
        {"prompt": "As JSON.", "expected": {"a": 1, "b": [2]}},
        {"prompt": "As text.", "expected": '{"a": 1}'},
        {"prompt": "Anything."},
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (task,) = find_tasks([str(file)], 10, 0, words)
    assert (task.name, task.most[0], len(task.prompts)) == ("mine.jsonl", 3, 5)
    two, lamp, object_, text, none = task.judges
    assert two(" two\n") and not two("Two") and lamp("a lamp") and not lamp("the lamp")
    assert object_('{"b": [2], "a": 1}') and not object_('{"a": 1}') and text('{ "a":1 }') and not text("a")
    assert none is None and len(rows_of(file, 2).prompts) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "has no rows"), ("{", "line 1 is not JSON"), ('{"a": 1}', "prompt or messages"), (None, "read")],
)
def test_files_that_are_no_rows_are_refused(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "mine.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=why):
        find_tasks([str(file)], 10, 0, words)


@pytest.mark.parametrize("name", ["loockup-100", "copy-100", "lookup-100@2", "copy@0.5", "lookup-x", "passage-100@0.5"])
def test_tasks_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no task"):
        asked_task(name, 1, 0, words)
