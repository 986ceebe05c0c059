"""Rows with documents: what they become in prompts, and the order of them that rows share."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel.cli.main import main
from umbel.engine.document_prompts import encode_alone
from umbel.errors import UsageError

TEXTS = [f"Passage {name} tells at length of what happened to {name} in the year of {name}." for name in "abcde"]
DRAWN = [(3, 1), (2, 3), (0, 3), (3, 4), (1, 3)]  # the documents of each row: all have number 3, in changing places
PROMPT = "{documents}\n\nQuestion: {question}"


def written(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    documents = [[{"id": f"d{n}", "title": f"T{n}", "text": TEXTS[n]} for n in numbers] for numbers in DRAWN]
    return written(tmp_path, [{"documents": some, "question": f"What is {i}?"} for i, some in enumerate(documents)])


def answers(source: Path, **options: Any) -> list[dict[str, Any]]:
    target = source.with_name("out.jsonl")
    given = {"model": "demo", "prompt": PROMPT, "max_tokens": 2, "quiet": True, "include_prompt": True, "fresh": True}
    umbel.run(source, target, **given | options)
    return [json.loads(line) for line in target.read_text().splitlines()]


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--prompt", PROMPT, "-m", "demo", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_documents_stand_in_the_prompt_as_they_come(source: Path) -> None:
    rows = answers(source)
    assert rows[0]["prompt"] == f"{TEXTS[3]}\n\n{TEXTS[1]}\n\nQuestion: What is 0?"
    assert rows[2]["prompt"] == f"{TEXTS[0]}\n\n{TEXTS[3]}\n\nQuestion: What is 2?"


def test_a_format_has_their_fields(source: Path) -> None:
    found = answers(source, document_format="[{id}] {title}: {text}")
    assert found[1]["prompt"].startswith(f"[d2] T2: {TEXTS[2]}\n\n[d3] T3: {TEXTS[3]}\n\n")


def test_texts_alone_and_another_column(tmp_path: Path) -> None:
    """As lists of texts, and in a table as JSON; a list in any other column is JSON, as ever."""
    source = written(tmp_path, [{"ctxs": ["one", {"text": "two"}], "tags": ["x", "y"], "question": "?"}])
    prompt = "{ctxs}|{tags}|{question}"
    assert answers(source, prompt=prompt, documents="ctxs")[0]["prompt"] == 'one\n\ntwo|["x","y"]|?'
    table = tmp_path / "rows.csv"
    with open(table, "w", newline="") as stream:
        csv.writer(stream).writerows(
            [["documents", "question"], ['["one", {"text": "two"}]', "?"], ["[so] he said", "?"]]
        )
    assert [row["prompt"].split("\n\nQ")[0] for row in answers(table)] == ["one\n\ntwo", "[so] he said"]


def test_shared_documents_come_first(source: Path) -> None:
    """The one of all rows first, then the one of two of them; each row is that of a file in this order."""
    laid = answers(source, layout="documents")
    assert [row["prompt"].split("\n\n")[0] for row in laid] == [TEXTS[3]] * 5
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row, numbers in zip(rows, [(3, 1), (3, 2), (3, 0), (3, 4), (3, 1)], strict=True):
        row["documents"] = [TEXTS[n] for n in numbers]
    plain = answers(written(source.parent, rows))
    assert [(row["prompt"], row["token_ids"]) for row in laid] == [(row["prompt"], row["token_ids"]) for row in plain]


def test_auto_puts_documents_before_what_differs(source: Path) -> None:
    written_last = answers(source, prompt="Question: {question}\n{documents}", layout="auto")
    assert written_last[2]["prompt"] == f"{TEXTS[3]}\n\n{TEXTS[0]}\nQuestion: What is 2?"


def test_a_plan_says_unasked_what_the_order_saves(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off, on = (planned(capsys, str(source), "--layout", rule) for rule in ("off", "auto"))
    assert off["layout"]["documents"] and not off["layout"]["taken"]
    assert "documents by the rows that share them" in off["layout"]["text"]
    assert on["layout"]["taken"] and on["computed_prompt_tokens"] < off["computed_prompt_tokens"]


def test_a_row_at_fault_is_named_and_the_others_are_laid_out(tmp_path: Path) -> None:
    rows = [{"documents": [TEXTS[n] for n in numbers], "question": "?"} for numbers in DRAWN]
    rows += [{"documents": ["fine", 5], "question": "?"}, {"documents": [{"title": "T"}], "question": "?"}]
    found = answers(written(tmp_path, [*rows, {"question": "?"}]), layout="documents")
    assert [row["prompt"].split("\n\n")[0] for row in found[:5]] == [TEXTS[3]] * 5
    messages = [row["error"]["message"] for row in found[5:]]
    assert messages[0] == "documents[1] is 5: a document is a text or an object"
    assert messages[1].startswith("documents[0]: column 'text', which --document-format uses, is missing")
    assert messages[2].startswith("column 'documents', which --prompt uses, is missing")


def test_another_order_is_another_job(source: Path) -> None:
    """A file that has grown by a row that shares another document goes on under no order that it had."""
    answers(source, layout="documents")
    with open(source, "a") as stream:
        stream.write(json.dumps({"documents": [TEXTS[0], TEXTS[2]], "question": "?"}) + "\n")
    with pytest.raises(UsageError, match=r"another job|document_order|input"):
        answers(source, layout="documents", fresh=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"documents": "question", "prompt": None}, r"documents: only means something with prompt"),
        ({"documents": "ctxs"}, r"documents: prompt does not say where they stand; write {ctxs} there"),
        ({"document_format": "{text"}, r"document_format"),
        ({"document_format": "text"}, r"document_format text: names no column|document_format.*names no"),
        ({"layout": "documents", "prompt": "{question}"}, r"layout documents: prompt needs {documents} once"),
        ({"layout": "documents", "pin": "documents"}, r"layout documents: prompt needs {documents} once, not pinned"),
    ],
)
def test_what_cannot_be_is_refused(source: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        answers(source, **options)


APART: dict[str, Any] = {"technique": ["turbo-rag"], "allow_lossy": True, "temperature": 0.0, "dtype": "float32"}


def test_documents_apart_are_tokens_each_alone(source: Path) -> None:
    """A job answers as calls do that give the same pieces; a blank line belongs to the document before it."""
    rows = answers(source, **APART)
    pieces = [[TEXTS[n] + "\n\n" for n in numbers] for numbers in DRAWN]
    with umbel.LLM("demo", technique="turbo-rag", allow_lossy=True, dtype="float32") as llm:
        encode, prompts = encode_alone(llm.intake.tokenizer), []
        for row, some in enumerate(pieces):
            ids, spans = list[int](), []
            for document in encode(some):
                spans.append([len(ids), len(ids) + len(document)])
                ids += document
            prompts.append({"prompt_token_ids": ids + encode([f"Question: What is {row}?"])[0], "documents": spans})
        texts = [{"prompt": row["prompt"], "documents": places(row["prompt"])} for row in rows]
        params = umbel.SamplingParams(temperature=0.0, max_tokens=2)
        tokens, by_text = (llm.generate(each, params, use_tqdm=False) for each in (prompts, texts))
    assert [row["token_ids"] for row in rows] == [list(output.outputs[0].token_ids) for output in tokens]
    assert [output.prompt_token_ids for output in by_text] == [prompt["prompt_token_ids"] for prompt in prompts]
    assert [output.outputs for output in by_text] == [output.outputs for output in tokens]


def places(prompt: str) -> list[list[int]]:
    """Where the documents of a prompt stand in it, in characters."""
    return [[prompt.index(text), prompt.index(text) + len(text)] for text in prompt.split("\n\n")[:-1]]


def test_a_plan_counts_each_document_once(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "--technique", "turbo-rag", "--allow-lossy", "--temperature", "0"
    plain, apart = planned(capsys, str(source)), planned(capsys, str(source), *asked)
    found = next(one for one in apart["decisions"] if one["name"] == "documents")["facts"]
    assert (found["places"], found["distinct"]) == (10, 5)
    assert apart["computed_prompt_tokens"] == found["computed"] < plain["computed_prompt_tokens"]
    assert apart["lossy"] == ["reuse turbo-rag"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": "{question}"}, "prompt must have {documents}, once"),
        ({"prompt": "{documents} {question} {documents}"}, "prompt must have {documents}, once"),
        ({"system": "Be brief."}, "leave chat and system out"),
        ({"data_parallel_size": 2}, "replicas are sent prompts without their documents"),
        ({"technique": ["turbo-rag:kept=0"]}, "kept='0': must be a whole number of at least 1"),
        ({"technique": ["turbo-rag:budget=0.5"]}, "'budget' is no setting of turbo-rag; it has kept"),
    ],
)
def test_a_job_that_cannot_compute_documents_apart(source: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        answers(source, **APART | options)
    assert said in str(error.value)


def test_rows_whose_documents_cannot_be_apart_are_error_rows(tmp_path: Path) -> None:
    """Each with its reason; a row without any, and one of empty texts, answer as ever."""
    good = {"documents": TEXTS[:2], "question": "?"}
    rows = [good, {**good, "prompt_logprobs": 1}, {**good, "choices": ["a", "b"]}, {**good, "truncation": "left"}]
    rows += [{"documents": [], "question": "?"}, {"documents": ["", ""], "question": "?"}]
    found = answers(written(tmp_path, rows), **APART)
    codes = [row["error"] and row["error"]["param"] for row in found]
    assert codes == [None, "prompt_logprobs", "documents", "truncation", None, None]
    alone = answers(written(tmp_path, [good, *rows[4:]]), **APART)
    assert [row["token_ids"] for row in found if not row["error"]] == [row["token_ids"] for row in alone]


def test_a_plan_says_unasked_what_documents_once_would_save(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they come, in the best order and apart, near what plans count; nothing where an order does as well, or where
    it cannot be."""
    assert not planned(capsys, str(source))["layout"]["reuse"]
    pairs = [(0, 1), (1, 2), (2, 0), (0, 3), (3, 1)]
    rows = [{"documents": [TEXTS[n] for n in numbers], "question": f"What is {i}?"} for i, numbers in enumerate(pairs)]
    path = str(written(tmp_path, rows))
    plain, laid, apart = (planned(capsys, path, *asked) for asked in ((), ("--layout", "documents"), TURBO))
    said = re.findall(
        r"about ([\d,]+) prompt tokens.* ([\d,]+) in the order.* ([\d,]+) as they come", plain["layout"]["reuse"]
    )
    counted = [each["computed_prompt_tokens"] for each in (apart, laid, plain)]
    assert [int(number.replace(",", "")) for number in said[0]] == pytest.approx(counted, rel=0.1)
    assert counted == sorted(counted) and not apart["layout"]["reuse"]
    assert not planned(capsys, path, "--kv-cache-dtype", "int8", "--allow-lossy")["layout"]["reuse"]


TURBO = "--technique", "turbo-rag", "--allow-lossy"
