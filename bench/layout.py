"""What the order of a template's lines saves on real tables: as written, one order for all rows, and GGR's, row by row.

    python bench/layout.py DATA [--out docs/layout.md]

DATA is a folder with tables/comics_dc.csv.gz and tasks/ (mmlu, bbh, nq_open_oracle, musique_rag). Every column is a
line `name: value`; shares are of characters that are computed when rows share equal lines from the first on, each run
once. GGR is Algorithm 1 of 2403.05821 without functional dependencies and without its limits of depth.

The second table is of rows with documents: MuSiQue's questions with the ten contexts that CacheBlend gives each, and
questions of NQ-open with the passages of all of them that TF-IDF finds nearest, nearest first.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umbel.jobs.read.formats.documents import digest_of
from umbel.plan.document_order import RowDocuments, document_tree
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


def musique(data: Path) -> Texts:
    """The contexts of each question."""
    with gzip.open(data / "tasks/musique_rag.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [[context["text"] for context in json.loads(line)["ctxs"]] for line in stream]


def nearest(data: Path, count: int) -> Texts:
    """For each question of NQ-open the passages that TF-IDF finds nearest, in that order."""
    with gzip.open(data / "tasks/nq_open_oracle.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    passages = list(dict.fromkeys(context["text"] for row in rows for context in row["ctxs"]))
    words = [re.findall(r"\w+", text.lower()) for text in passages]
    found: dict[str, dict[int, int]] = {}
    for at, some in enumerate(words):
        for word in some:
            found.setdefault(word, {}).setdefault(at, 0)
            found[word][at] += 1
    sizes = np.array([len(some) for some in words]) ** 0.5
    nearby = []
    for row in rows:
        scores = np.zeros(len(passages))
        for word in re.findall(r"\w+", row["question"].lower()):
            for at, times in found.get(word, {}).items():
                scores[at] += times / sizes[at] * math.log(len(passages) / len(found[word])) ** 2
        nearby.append([passages[at] for at in np.argsort(-scores, kind="stable")[:count]])
    return nearby


def retrieved(name: str, rows: Texts) -> str:
    """A row of the table of documents: as they come, in the order of the tree, and what any order must compute."""
    lengths = {digest_of(text): len(text) for row in rows for text in row}
    found = [[digest_of(text) for text in row] for row in rows]
    nothing = [(0, 0)] * len(rows)
    began = time.perf_counter()
    tree = document_tree(RowDocuments(0, nothing, nothing, found, lengths))
    orders = [tree.order(row) for row in found]
    seconds = time.perf_counter() - began
    total = sum(lengths[one] for row in found for one in row)
    laid = [[row[at] for at in order] for row, order in zip(rows, orders, strict=True)]
    parts = [distinct(rows), distinct(laid), sum(lengths.values())]
    return f"| {name} | {len(rows):,} | {' | '.join(f'{part / total:.1%}' for part in parts)} | {seconds:.2g} s |"


def distinct(rows: Texts) -> int:
    """Characters of the different beginnings of rows, by brute force."""
    runs = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    return sum(len(run[-1]) for run in runs)


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
    lines += ["", "| rows with documents | rows | as they come | by the tree | every one once | it takes |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |", retrieved("MuSiQue, 10 contexts", musique(given.data))]
    lines += [retrieved(f"NQ-open, {n} nearest passages", nearest(given.data, n)) for n in (3, 10)]
    print("\n".join(lines))
    if given.out:
        before = given.out.read_text(encoding="utf-8").partition(MARK)[0]
        given.out.write_text(before + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
