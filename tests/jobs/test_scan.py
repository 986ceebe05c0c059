"""The quick pass over a file finds what a slow one finds: rows, lines, repeated ids, common beginnings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.jobs.read import scan as scan_module
from umbel.jobs.read.cuts import WindowSizes, arrange, cut
from umbel.jobs.read.outline import Outline, outline, repeats
from umbel.jobs.read.scan import LEVELS, scan
from umbel.jobs.read.source import Source
from umbel.jobs.read.windows import LineFiles

MARKERS = (b'"prompt"', b'"message')
LINES = [
    b'{"custom_id": "a", "prompt": "one"}',
    b'{"custom_id":"a","prompt":"two"}',
    b'{"prompt": "three", "custom_id": "a"}',
    b'{"custom_id": "\\u0061", "prompt": "four"}',
    b'{"custom\\u005fid": "a", "prompt": "five"}',
    b'{"custom_id": "x", "prompt": "six", "custom_id": "a"}',
    b'{"prompt": "seven", "metadata": {"custom_id": "a"}}',
    b'{"prompt": "say \\"custom_id\\": \\"a\\""}',
    b'{"custom_id": "3", "prompt": "eight"}',
    b'{"custom_id": "b\\"c", "prompt": "nine"}',
    b'{"custom_id": "", "prompt": "ten"}',
    b'{"custom_id": 7, "prompt": "eleven"}',
    b'{"custom_id": "a"',
    b"",
    b"   ",
    b"\t\x0b",
    b"[1]",
    b"\xff\xfd",
    b'{"custom_id": "\xc3\xa9", "prompt": "twelve"}',
    b'{"custom_id": "' + b"long" * 40 + b'", "prompt": "thirteen"}',
    b'{"custom_id": "cr", "prompt": "fourteen"}\r',
]


def slow_repeats(path: Path) -> dict[int, int]:
    """Rows that the ordinary reader calls duplicates, with the line that their message names first."""
    found = {}
    for row in Source(path).rows():
        if row.error is not None and row.error.code == "duplicate_custom_id":
            found[row.row] = int(row.error.message.rsplit(" ", 1)[1])
    return found


def check(path: Path) -> None:
    """Hold the scan to the ordinary reader."""
    rows = list(Source(path).rows())
    found = Outline.of([path], MARKERS)
    assert found.lines.tolist() == [row.line for row in rows]
    assert sorted(found.order.tolist()) == [row.row for row in rows]
    implicit = Source(path).parser().endpoint is None
    with LineFiles([Source(path)], found) as files:
        seen = repeats(found, files.line, implicit=implicit)
        assert {row: int(found.lines[first]) for row, first in seen.items()} == slow_repeats(path)
        parsed = list(files.rows(np.arange(len(rows)), [Source(path).parser()], seen))
    assert parsed == rows


@settings(max_examples=150)
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=14).filter(lambda found: any(x.strip() for x in found)),
    end=st.sampled_from([b"", b"\n"]),
    bom=st.booleans(),
)
def test_as_the_ordinary_reader(
    lines: list[bytes], end: bytes, bom: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "scan.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * bom + b"\n".join(lines) + end)
    check(path)


@pytest.mark.parametrize("block", [64, 1_000, 4 * 2**20])
def test_blocks_of_any_size(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "BLOCK_BYTES", block)
    rng = random.Random(block)
    path = tmp_path / "in.jsonl"
    lines = [
        json.dumps({"custom_id": f"id-{rng.randrange(300)}", "prompt": "x" * rng.randrange(90)}) for _ in range(400)
    ]
    path.write_text("\n".join(lines))
    check(path)
    whole = scan(path, MARKERS)
    monkeypatch.setattr(scan_module, "BLOCK_BYTES", 1 << 22)
    assert (whole.keys == scan(path, MARKERS).keys).all()


def test_openai_lines_without_an_id_do_not_go_by_their_number(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    path = tmp_path / "in.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [line, {**line, "custom_id": "0"}, {**line, "custom_id": "0"}])
    )
    check(path)
    assert slow_repeats(path) == {2: 2}


def test_overlong_lines_are_rows_without_an_id(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    wide = b'{"custom_id": "a", "prompt": "' + b"x" * (17 * 2**20) + b'"}'
    path.write_bytes(b"\n".join([LINES[0], wide, LINES[1], wide]))
    check(path)


def common(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_rows_with_a_common_beginning_are_neighbours(tmp_path: Path) -> None:
    rng = random.Random(3)
    tops = ["".join(rng.choices("abcdef ", k=60)) for _ in range(3)]
    middles = [rng.choice(tops) + "".join(rng.choices("abcdef ", k=rng.randrange(60, 300))) for _ in range(40)]
    prompts = [rng.choice(middles) + f" {i} " + "y" * 300 for i in range(1_000)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"custom_id": str(i), "prompt": p}) + "\n" for i, p in enumerate(prompts)))
    found = Outline.of([path], MARKERS)
    ordered = [prompts[i] for i in found.order.tolist()]
    group = {m: [i for i, p in enumerate(ordered) if p.startswith(m)] for m in middles}
    apart = sum(places[-1] - places[0] + 1 - len(places) for places in group.values() if places)
    assert apart == 0  # each group lies in one piece
    reached = [8 * LEVELS[n - 1] if n else 0 for n in found.shared.tolist()]
    skipped = len('"prompt": "')
    claimed_too_much = [
        place for place in range(1, 1_000) if reached[place] > common(ordered[place - 1], ordered[place]) + skipped
    ]
    assert len(claimed_too_much) <= 3  # digests of 16 bits meet by chance in a few of the 12,000 pairs of neighbours


def test_rows_that_share_nothing_keep_their_order(tmp_path: Path) -> None:
    rng = random.Random(4)
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{rng.random()} {'z' * 90}"}) + "\n" for _ in range(500)))
    assert Outline.of([path], MARKERS).order.tolist() == list(range(500))


def test_lone_rows_of_a_block_keep_their_order() -> None:
    keys = np.zeros((300, len(LEVELS)), np.uint16)
    keys[:, :2] = 7
    keys[:, 2] = np.random.default_rng(0).permutation(300) + 1
    order, shared = arrange(keys)
    assert order.tolist() == list(range(300))
    assert shared.tolist() == [0] + [2] * 299


@settings(max_examples=200)
@given(
    shared=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    first=st.integers(1, 10),
    growth=st.integers(1, 4),
    rows=st.integers(1, 30),
    n_bytes=st.integers(1, 400),
)
def test_cuts_cover_all_rows_within_their_limits(
    shared: list[int], first: int, growth: int, rows: int, n_bytes: int
) -> None:
    sizes = np.random.default_rng(len(shared)).integers(1, 50, len(shared))
    cuts = list(cut(np.array(shared, np.uint8), sizes, WindowSizes(first, growth, max(first, rows), n_bytes)))
    assert [row for start, end in cuts for row in range(start, end)] == list(range(len(shared)))
    for start, end in cuts:
        assert end - start == 1 or (end - start <= max(first, rows) and sizes[start:end].sum() <= n_bytes)
    size = max((k for k in range(1, len(shared) + 1) if k <= first and sizes[:k].sum() <= n_bytes), default=1)
    if size < len(shared):  # the first window: of the places where it may end, the last of the best
        places = range(max(1, size * 3 // 4), size + 1)
        least = min(shared[place] for place in places)
        assert cuts[0][1] == max(place for place in places if shared[place] == least)


def test_a_process_of_its_own_finds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(LINES))
    called: list[int] = []
    found, wanted = outline([path], MARKERS, lambda: called.append(1)), Outline.of([path], MARKERS)
    assert called == [1]
    for name in ("offsets", "lines", "ids", "order", "shared", "firsts", "bases"):
        assert (getattr(found, name) == getattr(wanted, name)).all()


def test_what_goes_wrong_meanwhile_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(LINES))

    def fails() -> None:
        raise MemoryError("simulated")

    with pytest.raises(MemoryError):
        outline([path], MARKERS, fails)
