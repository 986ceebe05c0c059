"""The lab's tables and page say what was measured, load nothing from elsewhere, and are read back as they were."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plan.test_choice import INT8, KV8, pages, task
from umbel.cli.main import main
from umbel.lab.page import lab_page, trade_off
from umbel.lab.session import LabRecord, damage_file
from umbel.lab.table import markdown, said_of, sections, task_head, task_rows
from umbel.plan.choice import lossy_rows

ABOUT = {"model": "demo", "machine": "here", "dtype": "float32", "date": "2026-01-02T03:04", "rows": 200, "rounds": 2}
MASSES = ((0.5, 1, 4, 0.97), (0.1, 90, 2, 0.6))  # budgets, losses, seconds, mass
PAGES = tuple(replace(pages(b, n, s), keys_share=b, kept_mass=m, least_mass=m / 2) for b, n, s, m in MASSES)
RECORD = LabRecord(ABOUT, (INT8, KV8, *PAGES), {"linear fp8": "needs what <this> machine has not"})


def test_tables_have_every_technique_and_task() -> None:
    text = markdown(RECORD)
    for one in RECORD.techniques:
        assert f"| {one.name} |" in text
    assert "| pages:budget=0.1 | 65% | 10% |" in text and "60.0% (30%)" in text and "45.0% (long)" in text
    assert "- linear fp8: not measured: needs what" in text
    dense, *rows = task_rows(RECORD.techniques)
    assert task_head(RECORD.techniques) == ["technique", "short (100)", "long (2,000)"]
    assert dense == ["dense", "100%", "100%"] and [row[0] for row in rows] == [one.name for one in RECORD.techniques]
    assert [row[2] for row in rows] == ["99% (lost 2)", "100%", "100% (lost 1)", "55% (lost 90)"]


def test_sections_have_a_paragraph_a_source_and_a_table_each() -> None:
    text = sections(RECORD)
    assert re.findall(r"^### (.*)$", text, re.M) == ["linear: int8", "kv: int8", "select: pages"]
    part = text.split("### select: pages")[1]
    assert "Quest" in part.split("|")[0] and "Source: Quest, 2406.10774" in part and part.count("\n| pages:budget") == 4


def test_a_task_that_one_technique_was_not_asked_about_is_left_blank() -> None:
    other = replace(INT8, tasks=(task("other", 50, 0, 1),))
    dense, *rows = task_rows((KV8, other))
    assert dense[1:] == ["100%"] * 3
    assert sorted(zip(task_head((KV8, other))[1:], *(row[1:] for row in rows), strict=True)) == [
        *(("long (2,000)", "100%", "–"), ("other (50)", "–", "100%"), ("short (100)", "100%", "–"))
    ]


class Tags(HTMLParser):
    """What a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset")]
        assert tag not in ("script", "link", "iframe")


def test_the_page_stands_by_itself() -> None:
    html, tags = lab_page(RECORD), Tags()
    tags.feed(html)
    assert not tags.loaded and "url(" not in html and "@import" not in html
    assert "What lossy techniques do to demo" in html and "&lt;this&gt;" in html
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    for name in ("Answers lost against seconds", "Answers lost against keys read", "Softmax kept against keys read"):
        assert name in titles


def test_points_stand_where_their_figures_are() -> None:
    drawn = trade_off(PAGES, lambda one: 100 * one.keys_share, lambda one: 100 * one.share_lost, "x", "y")
    root = ElementTree.fromstring(drawn)
    low, high = sorted((float(one.get("cx")), float(one.get("cy"))) for one in root.iter("circle"))
    (line,) = root.iter("polyline")
    assert line.get("points") == f"{low[0]:.1f},{low[1]:.1f} {high[0]:.1f},{high[1]:.1f}"
    assert low[0] < high[0] and low[1] < high[1]  # a smaller budget to the left; it loses more, and stands higher
    names = [one.text for one in root.iter("text")]
    assert {"pages 0.1", "0.5", "x", "y"} <= set(names)
    assert [one.text for one in root.iter("title")] == ["pages:budget=0.1", "pages:budget=0.5"]


def test_names_of_points_do_not_cover_each_other() -> None:
    crowd = tuple(replace(KV8, value=f"int{n}") for n in range(8))
    root = ElementTree.fromstring(trade_off(crowd, lambda one: 50.0, lambda one: 1.0, "x", "y"))  # near the upper end
    places = [(one.get("x"), one.get("y")) for one in root.iter("text") if (one.text or "").startswith("kv int")]
    assert len(set(places)) == 8
    assert all(0 < float(y) < 320 for _, y in places)


def test_a_record_is_shown_again_and_written_into_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page, html = tmp_path / "lab.json", tmp_path / "page.md", tmp_path / "lab.html"
    file.write_text(json.dumps(RECORD.as_dict()))
    page.write_text("# Techniques\n\nBefore.\n\n<!-- lab: begin -->\nold\n<!-- lab: end -->\n\nAfter.\n")
    assert main(["lab", "--from", str(file), "--page", str(page), "--html", str(html), "--json"]) == 0
    assert LabRecord.of_dict(json.loads(capsys.readouterr().out)) == RECORD
    text = page.read_text()
    assert text.startswith("# Techniques\n\nBefore.") and text.endswith("After.\n") and "old" not in text
    assert sections(RECORD) in text and html.read_text() == lab_page(RECORD)
    file.write_text("{}")
    assert main(["lab", "--from", str(file)]) == 2
    assert "is no record of umbel lab --json" in capsys.readouterr().err


def test_a_session_measures_and_keeps_what_it_found(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A technique that cannot be used here is named, and the others go on; what is kept grows by task."""
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"prompt": "Text: it was great.\\nSentiment:", "expected": "positive", "max_tokens": 2}\n' * 2)
    words = ["lab", "-m", "demo", "--rows", "3", "--rounds", "1", "--dtype", "float32", "--device", "cpu"]
    assert main([*words, "--techniques", "kv=int8,pages", "--tasks", "copy", "--budgets", "0.5", "--json"]) == 0
    record = LabRecord.of_dict(json.loads(capsys.readouterr().out))
    assert [one.name for one in record.techniques] == ["kv int8", "pages:budget=0.5"]
    kv, picks = record.techniques
    assert kv.kv_bytes < kv.dense_kv_bytes and kv.keys_share == 1.0 and kv.kept_mass is None
    assert picks.keys_share == 1.0 and picks.tasks[0].parted == 0  # prompts are shorter than what is always read
    assert main([*words, "--techniques", "kv=int8", "--tasks", str(mine)]) == 0
    assert "| kv int8 |" in capsys.readouterr().out
    kept = damage_file("demo").load()
    assert main(["lab", "-m", "demo", "--kept", "--json"]) == 0
    assert LabRecord.of_dict(json.loads(capsys.readouterr().out)).techniques == kept
    assert [[task.task for task in one.tasks] for one in kept] == [["copy", "mine.jsonl"], ["copy"]]
    assert all(task.dense_seconds > 0 < task.seconds for one in kept for task in one.tasks)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "give a model"),
        (("--kept",), "give a model"),
        (("-m", "demo", "--kept"), "nothing was measured of demo yet"),
        (("-m", "demo", "--techniques", "forest"), "no lossy technique"),
        (("-m", "demo", "--tasks", "sorting"), "no task"),
        (("-m", "demo", "--budgets", "few"), "must be numbers"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", *words]) == 2
    assert why in capsys.readouterr().err


def test_everything_lossy_has_words_of_its_own() -> None:
    said = [said_of(row) for row in lossy_rows()]
    assert all(len(text) > 30 and text.endswith((".", ":")) for text in said)
