"""The page of a plan: what it is of, what is shared in words, and that its figures are those of the record."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.plan.workloads import CANONICAL, MACHINE, SPEC, of
from umbel.batch.extras import write_page
from umbel.config import EngineConfig
from umbel.ir.workload import Workload
from umbel.plan.explain.about import About, machine_words
from umbel.plan.explain.forest import runs
from umbel.plan.explain.page import LISTED, plan_page
from umbel.plan.explain.text import explain, to_json
from umbel.plan.explain.tree import shown_lines
from umbel.plan.explain.words import CHARACTERS, put_words, shortened
from umbel.plan.planner import make_plan

VOID = {"meta", "br", "line", "rect", "polyline", "polygon", "img", "link"}


class Balanced(HTMLParser):
    """Fails where an element is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_balanced(html: str) -> None:
    """Fail unless all elements of a page are closed where they should be."""
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert not parser.open


def spelt(ids: list[int]) -> str:
    """A token is a letter."""
    return "".join(map(chr, ids))


def written(texts: list[str]) -> Workload:
    """A workload of prompts whose tokens are letters below 256."""
    return of([[*map(ord, text)] for text in texts])


def planned(workload: Workload) -> tuple[dict[str, Any], str]:
    """A plan's record with words, and its page."""
    plan = make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE)
    record = to_json(plan)
    put_words(record["tree"], shown_lines(plan), plan, workload, spelt)
    record["about"] = About.now("in.jsonl", "a<b>", machine_words(MACHINE), ["plan", "my file.jsonl"]).as_dict()
    return record, plan_page(record, explain(plan), "Plan of in.jsonl")


EVIL = "<script>alert(1)</script> & Judge the answer"


def test_what_is_shared_stands_on_its_block_as_text_and_nothing_else() -> None:
    record, html = planned(written([f"{EVIL} of {i % 2} and {i}" for i in range(40)]))
    assert record["tree"][0]["text"].startswith("<script>alert(1)</script>")
    check_balanced(html)
    assert "<script" not in html
    block = re.search(r"<rect class=\"run[^>]*><title>1\. ([^<]*)</title>", html)
    assert block and "40 rows share" in block[1]
    assert unescape(block[1]).endswith(record["tree"][0]["text"])
    cell = re.search(r"<td class=\"words\">([^<]*)</td>", html)
    assert cell and unescape(cell[1]) == record["tree"][0]["text"]
    on_block = re.findall(r"<text class=\"inside run[^>]*>([^<]*)</text>", html)
    assert any(unescape(one).startswith("<script>alert(1)") for one in on_block)


@pytest.mark.parametrize("name", CANONICAL)
def test_figures_are_those_of_the_record(name: str) -> None:
    record, html = planned(CANONICAL[name]())
    check_balanced(html)
    tiles = re.findall(r"<div class=\"tile\">([^<]*)<b>([^<]*)</b><span>([^<]*)</span>", html)
    by = {name: f"{value} {note}".replace(",", "") for name, value, note in tiles}
    assert by["rows"].startswith(f"{record['rows']} {record['prompt_tokens']} prompt tokens")
    assert f"about {record['output_tokens']} out" in by["rows"]
    assert f"{record['steps']} steps" in by["time"]
    assert f"{record['saved_prompt_tokens']} prompt tokens" in by["saved by sharing"]
    assert by["KV peak"] == f"{record['kv_peak_tokens']} tokens of a pool of {record['kv_tokens']}"
    rows = re.findall(r"</i>(\d+)</td><td class=\"words\">[^<]*</td>" + r"<td>([\d,]+)</td>" * 3, html)
    listed = [[int(cell.replace(",", "")) for cell in row] for row in rows]
    wanted = [[run[key] for key in ("number", "rows", "tokens", "saved_tokens")] for run in runs(record["tree"])]
    assert listed == wanted
    assert [row[3] for row in listed] == sorted((row[3] for row in listed), reverse=True)
    assert (f"<summary>{len(listed) - LISTED} more</summary>" in html) == (len(listed) > LISTED)


def test_a_run_that_goes_on_says_so() -> None:
    workload = CANONICAL["three_levels"]()
    plan = make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE)
    record = to_json(plan)
    for said, begins in ((" a  word", "… a word"), ("rd", "…rd"), ("\ufffd", ""), ("", "")):
        put_words(record["tree"], shown_lines(plan), plan, workload, lambda ids, said=said: said)
        texts = [(line["parent"], line["text"]) for line in record["tree"] if line["kind"] == "run"]
        assert {text.removesuffix(" …") for parent, text in texts if parent >= 0} == {begins}
        assert {text.removesuffix(" …") for parent, text in texts if parent < 0} == {begins.lstrip("… ")}


def test_nothing_stands_on_a_block_that_it_would_leave() -> None:
    _, html = planned(CANONICAL["many_groups"]())
    block = r"<rect class=\"(?:run|own|rest)[^>]* width=\"([\d.]+)\" height=\"([\d.]+)\">.*?</rect>"
    found = re.findall(rf"{block}((?:\n<text.*?</text>)*)", html)
    assert len(found) > 10 and any(inside for *_, inside in found)
    for wide, tall, inside in found:
        texts = re.findall(r">([^<]*)</text>", inside)
        assert len(texts) * 15 <= max(float(tall), 0)
        assert all(6.4 * len(unescape(text)) <= float(wide) for text in texts)


def test_rows_at_fault_stand_first() -> None:
    plan = make_plan(CANONICAL["groups"](), SPEC, EngineConfig("tiny"), MACHINE)
    html = plan_page(to_json(plan), "", "t", ["FAULTS  <2> of 9 rows"])
    assert "<li>FAULTS  &lt;2&gt; of 9 rows</li>" in html.partition("Forest")[0]


def test_every_page_says_what_it_is_of() -> None:
    record, html = planned(CANONICAL["groups"]())
    about = record["about"]
    section = re.search(r"<section class=\"about\">(.*?)</section>", html, re.S)
    assert section is not None
    said = unescape(re.sub(r"<[^>]*>", "", section[1]))
    assert about["command"] == "umbel plan 'my file.jsonl'"
    assert all(value and value in said for value in about.values())
    assert "a<b>" not in html


def test_pale_blocks_say_how_many_branches_they_sum_up() -> None:
    record, html = planned(CANONICAL["many_groups"]())
    (rest,) = [line for line in record["tree"] if line["kind"] == "rest" and line["parent"] == -1]
    assert f"{rest['branches']} branches of {rest['rows']} rows" in html
    assert "smaller branches summed up" in html and "that each row has alone" in html
    assert "smaller branches summed up" not in planned(CANONICAL["unrelated"]())[1]


def test_axes_have_titles_of_their_own() -> None:
    _, html = planned(CANONICAL["groups"]())
    titles = re.findall(r"class=\"axis\"[^>]*>([^<]*)<", html)
    assert len(titles) == 6 and {"tokens held", "tokens a step", "rows, side by side"} <= set(titles)
    assert sum("time, " in title for title in titles) == 2


def test_what_is_refused_is_folded() -> None:
    record, html = planned(CANONICAL["one_row"]())
    folded = re.search(r"<details class=\"card\"><summary>Refused: (\d+) techniques", html)
    assert folded and int(folded[1]) == len(record["refusals"]) > 3


def test_texts_are_cut_at_words() -> None:
    assert shortened("short") == "short"
    assert shortened("short", more=True) == "short …"
    assert shortened("one two three", 9) == "one two …"
    assert shortened("x" * 200) == "x" * CHARACTERS + " …"


@pytest.mark.parametrize(("display", "opened"), [("", False), (":0", True)])
def test_a_page_is_shown_where_there_is_a_display(
    display: str, opened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda uri: shown.append(uri) or True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    page = tmp_path / "a page.html"
    write_page(page, "<!doctype html>", show=True)
    assert shown == ([page.as_uri()] if opened else [])
    assert (f"page: {page}" if opened else f"no browser to show it in; the page is {page}") in capsys.readouterr().err
