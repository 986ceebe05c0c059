"""Draws the charts of docs/benchmarks.md again from the tables of that page: python -m tools.charts.

The results themselves are not kept in the repository; the page has their medians, spreads and ratios, and a chart shows
no more than these. `umbel bench --page` writes tables and charts from results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from umbel.bench.chart import chart
from umbel.bench.page import chart_title
from umbel.bench.summary import ResultLine, Spread

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SECTION = re.compile(r"^## Run of .*?(?=^## |\Z)", re.M | re.S)
MACHINE = re.compile(
    r"^(?P<processor>.+?), \d+ cores, .*?; model (?P<model>\S+) in (?P<dtype>\w+), (?P<threads>\d+) threads;", re.M
)
PICTURE = re.compile(r"!\[[^\]]*\]\((\S+\.svg)\)")
SPREAD = re.compile(r"(?P<median>[\d.]+) (?:\((?P<count>\d+)\)|\[(?P<low>[\d.]+), (?P<high>[\d.]+)\])")


def drawn(page: str) -> Iterator[tuple[str, str]]:
    """The name and the text of each chart that a page shows, from its tables."""
    for section in SECTION.findall(page):
        name, facts = PICTURE.search(section), MACHINE.search(section)
        if name and facts:
            title = chart_title(facts["model"], facts["dtype"], int(facts["threads"]), facts["processor"])
            yield name[1], chart(list(results(section)), title)


def results(section: str) -> Iterator[ResultLine]:
    """The results of a run, workload by workload."""
    seconds, times = cells(section, "Seconds, median"), cells(section, "Times slower than")
    order = sorted(seconds, key=lambda place: list(dict.fromkeys(case for _, case in seconds)).index(place[1]))
    for engine, case in order:
        found = SPREAD.match(seconds[engine, case])
        if found:
            slower = float(times[engine, case])
            yield ResultLine(case, engine, spread(found), 0.0, 0.0, 0.0, Spread(slower, slower, slower, 1), 0)


def spread(found: re.Match[str]) -> Spread:
    """A spread as a table has it: with one number, that of a single run."""
    median = float(found["median"])
    return Spread(median, float(found["low"] or median), float(found["high"] or median), 1 if found["count"] else 2)


def cells(section: str, heading: str) -> dict[tuple[str, str], str]:
    """The cells of the table below a heading, by engine and workload."""
    table = section.partition(f"### {heading}")[2].partition("###")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {(row[0], case): cell for row in rows[2:] for case, cell in zip(rows[0][1:], row[1:], strict=True)}


def main() -> None:
    """Write the charts beside the page."""
    for name, text in drawn(PAGE.read_text(encoding="utf-8")):
        (PAGE.parent / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
