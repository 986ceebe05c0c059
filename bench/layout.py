"""What the order of a template's lines saves on real tables: as written, one order for all rows, and GGR's, row by row.

    python bench/layout.py DATA [--out docs/layout.md]

DATA is a folder with tables/comics_dc.csv.gz and tasks/ (mmlu, bbh). Every column is a line `name: value`; shares are
of characters that are computed when rows share equal lines from the first on, each run once. GGR is Algorithm 1 of
2403.05821 without functional dependencies and without its limits of depth, written anew from the paper.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umbel.plan.layout import best_layout

MARK = "<!-- table of bench/layout.py -->"
Texts = list[list[str]]
Ints = NDArray[np.int64]


def comics(data: Path) -> Texts:
    """Characters of DC Comics; the names come first, as in most tables."""
    columns = ("name", "ID", "ALIGN", "EYE", "HAIR", "SEX", "ALIVE", "YEAR")
    with gzip.open(data / "tables/comics_dc.csv.gz", "rt", encoding="utf-8") as stream:
        return [[f"{name}: {row[name]}" for name in columns] for row in csv.DictReader(stream)]


def mmlu(data: Path) -> Texts:
    """Questions before their subjects."""
    with gzip.open(data / "tasks/mmlu_test.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return [[f"Question: {r['question']}", f"Choices: {r['choices']}", f"Subject: {r['subject']}"] for r in rows]


def bbh(data: Path) -> Texts:
    """Inputs before their tasks, of which some have few answers."""
    with gzip.open(data / "tasks/bbh.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return [[f"Input: {r['input']}", f"Proposed answer: {r['target']}", f"Task: {r['task']}"] for r in rows]


TABLES = {"comics_dc, 8 columns": comics, "mmlu, 3 columns": mmlu, "bbh, 3 columns": bbh}


def computed(orders: Ints, texts: Texts) -> int:
    """Characters computed by a forest of lines, of which row i has `orders[i]`: a trie of tuples, by brute force."""
    seen, total = set[tuple[str, ...]](), 0
    for order, row in zip(orders.tolist(), texts, strict=True):
        for end in range(1, len(order) + 1):
            run = tuple(row[line] for line in order[:end])
            if run not in seen:
                seen.add(run)
                total += len(run[-1]) + 1
    return total


def ggr(texts: Texts) -> Ints:
    """GGR's order of the lines of each row (`[rows, lines]`)."""
    lengths = np.array([[len(text) + 1 for text in row] for row in texts], np.int64)
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in zip(*texts, strict=True)], axis=1)
    orders = np.tile(np.arange(codes.shape[1]), (len(codes), 1))
    todo = [(np.arange(len(codes)), 0, tuple(range(codes.shape[1])))]
    while todo:
        rows, place, lines = todo.pop()
        if len(rows) == 0 or not lines:
            continue
        line, group = _likeliest(codes[rows], lengths[rows], lines)
        if group is None:
            orders[rows, place:] = lines
            continue
        inside = rows[group]
        orders[inside, place] = line
        todo += [(rows[~group], place, lines), (inside, place + 1, tuple(one for one in lines if one != line))]
    return orders


def _likeliest(codes: Ints, lengths: Ints, lines: Sequence[int]) -> tuple[int, NDArray[np.bool_] | None]:
    """The line and the rows of the value with the highest hit count, len² × (rows - 1); None where none repeats."""
    best, found = 0, (lines[0], -1)
    for line in lines:
        values, starts, counts = np.unique(codes[:, line], return_index=True, return_counts=True)
        scores = lengths[starts, line] ** 2 * (counts - 1)
        if scores.max() > best:
            best, found = int(scores.max()), (line, int(values[scores.argmax()]))
    line, value = found
    return line, None if best == 0 else codes[:, line] == value


def measure(name: str, texts: Texts) -> str:
    """A row of the table."""
    lengths = np.array([[len(text) + 1 for text in row] for row in texts], np.int64)
    digests = np.array([[hash(pair) for pair in enumerate(row)] for row in texts], np.int64).view(np.uint64)
    began = time.perf_counter()
    layout = best_layout(digests, lengths, [tuple(range(lengths.shape[1]))])
    chosen = time.perf_counter()
    by_row = computed(ggr(texts), texts)
    ended = time.perf_counter()
    assert layout.computed == computed(np.tile(np.array(layout.order), (len(texts), 1)), texts)
    shares = [f"{part / layout.total:.1%}" for part in (layout.written, layout.computed, by_row)]
    return f"| {name} | {len(texts):,} | {' | '.join(shares)} | {chosen - began:.2g} s | {ended - chosen:.2g} s |"


def main() -> None:
    """Print the table, or write it behind its mark in a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    head = "| rows of | rows | as written | one order | GGR, row by row | one order takes | GGR takes |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    lines += [measure(name, read(given.data)) for name, read in TABLES.items()]
    print("\n".join(lines))
    if given.out:
        before = given.out.read_text(encoding="utf-8").partition(MARK)[0]
        given.out.write_text(before + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
