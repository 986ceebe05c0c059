"""From measurements to what is said of them: medians, ratios, losses, agreement, tables and the chart."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tools.charts import PAGE, drawn, results

from tests.bench import fakes
from umbel.bench.agreement import Truth, against_each_other, against_truth, sample
from umbel.bench.chart import chart
from umbel.bench.described import described
from umbel.bench.page import BEGIN, END, markdown, table, write_between
from umbel.bench.record import Record, read_record
from umbel.bench.summary import Spread, geometric, lines, lost, slow_measurements
from umbel.bench.tasks import TASKS
from umbel.bench.workloads import SHAPES, Row
from umbel.errors import InputError

SECONDS = {("W1", "umbel"): [2.0, 4.0, 3.0], ("W1", "peer"): [6.0, 6.0, 6.0], ("W2", "umbel"): [8.0] * 3,
           ("W2", "peer"): [4.0] * 3}  # fmt: skip


@pytest.fixture
def record() -> Record:
    found = fakes.record([fakes.case("W1"), fakes.case("W2")])
    found.calibrations = [{"at": "", "matmul": rate, "read": 1e10} for rate in (9e9, 1e10, 5e9)]
    for (case, engine), seconds in SECONDS.items():
        for number, value in enumerate(seconds):
            place = {"round": number, "seed": 101 + number, "case": case, "engine": engine}
            found.measurements.append({**place, "seconds": value, "at": "", "calibration": 1 if number == 2 else 0})
    found.engines = [{"name": name, "about": "x", "settings": {"a": 1}, "load_s": [2.0]} for name in ("umbel", "peer")]
    found.failures = [{"engine": "gone", "case": None, "why": "no interpreter", "at": ""}]
    return found


def test_medians_shares_and_ratios(record: Record) -> None:
    by = {(line.case, line.engine): line for line in lines(record)}
    ours = by["W1", "umbel"]
    assert ours.seconds == Spread(3.0, 2.0, 4.0, 3)
    assert ours.floor_share == pytest.approx(record.cases[0]["flops"] / 1e10 / 3.0)
    assert ours.output_rate == pytest.approx(record.cases[0]["output_tokens"] / 3.0)
    assert by["W1", "peer"].slower == Spread(2.0, 1.5, 3.0, 3)  # round by round: 3, 1.5, 2
    means = geometric(list(by.values()))
    assert means["umbel"] == (pytest.approx(1.0), 2)
    assert means["peer"] == (pytest.approx(math.sqrt(2.0 * 0.5)), 2)


def test_losses_and_slow_periods(record: Record) -> None:
    assert [(line.case, line.engine) for line in lost(lines(record))] == [("W2", "peer")]
    assert slow_measurements(record) == {(2, case, engine) for case, engine in SECONDS}
    assert {line.slow_runs for line in lines(record)} == {1}


def test_the_page_says_it_all(record: Record) -> None:
    record.whole = [
        {"round": 0, "seed": 1, "case": "W1", "engine": e, "seconds": s} for e, s in (("umbel", 8.0), ("peer", 96.0))
    ]
    record.agreement = {
        "oracle": {"W1": {"peer": {"rows": 8, "first_equal": 8, "all_equal": 7, "largest_lead_lost": 0.0123}}},
        "pairs": {"W1": {"umbel = peer": {"rows": 128, "first_equal": 128, "all_equal": 127}}},
    }
    text = markdown(record, "chart.svg")
    for said in ("3.00 [2.00, 4.00]", "12.00", "W2: peer takes 0.50 of our time", "gone: no interpreter", "0.012",
                 "![", "umbel = peer", "2.00"):  # fmt: skip
        assert said in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows and all(line.endswith("|") for line in rows)


def test_a_record_of_nothing_still_has_a_page() -> None:
    assert "Not measured" in markdown(Record(dict(fakes.ABOUT)))


def test_cells_keep_their_bars() -> None:
    assert table(["a|b"], [["c"]]).splitlines()[0] == "| a\\|b |"


def test_pages_keep_their_prose(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    write_between(path, "new")
    write_between(path, "newer")
    assert path.read_text() == f"# Title\n\nBefore.\n\n{BEGIN}\n\nnewer\n{END}\n\nAfter.\n"
    fresh = tmp_path / "fresh.md"
    write_between(fresh, "first")
    write_between(fresh, "second")
    assert "second" in fresh.read_text() and "first" not in fresh.read_text()


def test_the_chart_is_a_picture(record: Record) -> None:
    root = ElementTree.fromstring(chart(lines(record), "a < b & c"))
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("title") == len(SECONDS)
    bars = [bar for bar in root.iter() if bar.find("{*}title") is not None]
    widths, starts = ([float(bar.get(name, 0)) for bar in bars] for name in ("width", "x"))
    times = [line.slower.median for line in lines(record) if line.slower is not None]
    assert [w / max(widths) for w in widths] == pytest.approx([t / max(times) for t in times], abs=0.002)
    assert len(set(starts)) == 1 and max(widths) + starts[0] <= 860
    texts = [str(text.text) for text in root.findall(".//{*}text")]
    assert "2.00 times, 6.0 s [6.0, 6.0]" in texts and "0.50 times, 4.0 s [4.0, 4.0]" in texts
    assert "W1: 4 beginnings of 512 tokens each with 32 rows of 32 tokens; 4 tokens out" in texts
    assert "prefers-color-scheme:dark" in str(root.findtext("{*}style"))


def test_a_line_at_a_bar_goes_from_the_fastest_round_to_the_slowest(record: Record) -> None:
    root = ElementTree.fromstring(chart(lines(record), "t"))
    (line,) = root.findall(".//{*}path[@class='spread']")  # the others took one time only
    low, high = (float(x) for x in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", str(line.get("d")))[0])
    ours = next(bar for bar in root.iter() if str(bar.findtext("{*}title")).startswith("umbel on W1"))
    begin, wide = float(ours.get("x", 0)), float(ours.get("width", 0))
    assert [(low - begin) / wide, (high - begin) / wide] == pytest.approx([2 / 3, 4 / 3], abs=0.01)


def test_the_charts_of_the_page_are_drawn_from_its_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = dict(drawn(page))
    assert list(found) == [f"benchmarks-{i}.svg" for i in range(1, len(found) + 1)]
    assert {path.name for path in PAGE.parent.glob("benchmarks-*.svg")} == set(found)
    for name, text in found.items():
        assert (PAGE.parent / name).read_text(encoding="utf-8") == text, "run python -m tools.charts"
        assert "(random weights), bfloat16, 2 threads" in text


def test_a_page_gives_back_what_a_record_has(record: Record) -> None:
    wanted, found = (
        {(line.engine, line.case): (str(line.seconds), line.slower and line.slower.median) for line in told}
        for told in (lines(record), results(markdown(record)))
    )
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("W3", "64 rows of 4 to 768 tokens that share nothing; 1 to 128 tokens out"),
        ("W4", "4 rows of 256 tokens, 16 samples of each; 48 tokens out"),
        ("L2", "4 beginnings of 2,048 tokens each with 16 rows of 64 tokens; 64 tokens out, shuffled"),
        ("L1@8", "the first 8 rows of 1 beginning of 4,096 tokens with 64 rows of 32 tokens; 64 tokens out"),
        ("my-file", ""),
    ],
)
def test_workloads_have_words(name: str, words: str) -> None:
    assert described(name) == words
    assert all(described(one) for one in (*SHAPES, *TASKS))


def test_records_come_back(record: Record, tmp_path: Path) -> None:
    record.path = tmp_path / "bench.json"
    record.save()
    assert read_record(record.path).as_dict() == record.as_dict()
    (tmp_path / "other.json").write_text('{"about": {"format": 99}}')
    with pytest.raises(InputError, match="format"):
        read_record(tmp_path / "other.json")


def test_agreement_with_the_oracle() -> None:
    truth = Truth({0: [1, 2, 3], 4: [5, 6, 7]}, {0: [9.0, 0.5, 0.1], 4: [0.01, 3.0, 3.0]})
    found = against_truth({0: [1, 2, 3], 1: [8], 4: [4, 6, 7]}, truth)
    assert found == {"rows": 2, "first_equal": 1, "all_equal": 1, "largest_lead_lost": 0.01}
    same = against_truth(dict(truth.answers), truth)
    assert same == {"rows": 2, "first_equal": 2, "all_equal": 2, "largest_lead_lost": None}


def test_agreement_with_each_other() -> None:
    found = against_each_other({"a": {0: [1, 2], 1: [3, 4]}, "b": {0: [1, 9], 1: [3, 4]}, "c": {1: [0, 0]}})
    assert found["a = b"] == {"rows": 2, "first_equal": 2, "all_equal": 1}
    assert found["b = c"] == {"rows": 1, "first_equal": 0, "all_equal": 0}
    assert len(found) == 3


def test_samples_are_greedy_and_spread() -> None:
    rows = [Row([1], 1, temperature=float(i % 2)) for i in range(20)]
    assert sample(rows, 5) == [0, 4, 8, 12, 16]
    assert sample(rows, 99) == list(range(0, 20, 2))
    assert sample([Row([1], 1, temperature=1.0)], 3) == []
    assert len(sample([Row([1] * 15_000, 1)] * 7, 8)) == 2
