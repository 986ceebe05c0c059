"""What --workloads names: shapes, sets, first rows, tasks built from files, files of rows; and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from umbel.bench.sources import Sources, encoder, longest
from umbel.bench.workloads import Row, write_rows
from umbel.errors import InputError, UsageError
from umbel.models.families import resolve_model

DEMO = resolve_model("demo")
VOCAB = 100_000


def put(folder: Path, name: str, records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / f"{name}.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "tasks"
    put(
        folder,
        "qmsum",
        [{"transcript": "yes . " * n, "queries": [{"query": "why"}, {"query": "when"}]} for n in (3, 90)],
    )
    questions = [
        {"subject": s, "question": f"q{i}", "choices": list("wxyz"), "answer": 1} for s in "ab" for i in range(8)
    ]
    put(folder, "mmlu_test", questions)
    put(folder, "banking77_test", [{"text": f"t{i}", "category": "lost_card"} for i in range(4)])
    return tmp_path / "data"


def test_lists_sets_and_first_rows() -> None:
    sources = Sources(VOCAB, None, DEMO)
    assert [case.name for case in sources.cases("W, L1,W1")] == ["W1", "W2", "W3", "W4", "W5", "L1"]
    (case,) = sources.cases("W1@7")
    assert case.rows(3) == sources.case("W1").rows(3)[:7]


def test_tasks_share_what_they_should(data: Path) -> None:
    sources = Sources(VOCAB, data, DEMO)
    meeting = sources.case("L3").rows(1)
    assert len(meeting) == 2 and {row.max_tokens for row in meeting} == {32}
    assert len(meeting[0].prompt) > 90  # the longer one is nearer to 14,000 tokens
    mmlu = sources.case("MMLU").rows(1)
    assert len(mmlu) == 2 * 3 and {row.max_tokens for row in mmlu} == {1}
    text = encoder(DEMO)(["q0"])  # shots stand first, the question last
    assert len(mmlu[0].prompt) > 5 * len(text[0])
    labels = sources.case("BANKING77@3").rows(1)
    assert len(labels) == 3
    assert labels[0].prompt[:-6] == labels[1].prompt[:-6] or labels[0].prompt[:20] == labels[1].prompt[:20]


def test_tasks_have_content_of_their_own_each_round(data: Path) -> None:
    case = Sources(VOCAB, data, DEMO).case("L3")
    assert case.rows(1)[0].prompt[:8] != case.rows(2)[0].prompt[:8]
    assert case.rows(1)[0].prompt[8:] == case.rows(2)[0].prompt[8:]


def test_files_of_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", [Row([1, 2], 3), Row([4], 5)])
    (case,) = Sources(VOCAB, None, DEMO).cases(f"{tmp_path / 'mine.jsonl'}@1")
    assert case.name == "mine@1"
    assert [list(row.prompt[8:]) for row in case.rows(1)] == [[1, 2]]


def test_what_is_refused(tmp_path: Path, data: Path) -> None:
    sources = Sources(VOCAB, None, DEMO)
    with pytest.raises(UsageError, match="did you mean 'MMLU'"):
        sources.case("MMLV")
    with pytest.raises(UsageError, match="number of rows"):
        sources.case("W1@some")
    with pytest.raises(UsageError, match="--data"):
        sources.case("L3")
    with pytest.raises(InputError, match="qmsum"):
        Sources(VOCAB, tmp_path, DEMO).case("L3")
    with pytest.raises(UsageError, match="vocabulary of 10"):
        Sources(10, data, DEMO).case("MMLU")
    with pytest.raises(UsageError, match="tokenizer"):
        Sources(VOCAB, data, tmp_path).case("MMLU")


def test_byte_level_vocabularies(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    assert [list(ids) for ids in encoder(tmp_path)(["abba"])] == [[2, 1, 0]]


def test_longest_counts_the_answer() -> None:
    assert longest([Row([1] * 9, 2), Row([1], 20)]) == 21
