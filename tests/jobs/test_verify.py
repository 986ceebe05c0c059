"""The checker finds what a broken output can have wrong."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import make_job, write_rows
from umbel.jobs import verify as verify_module
from umbel.jobs.verify import verify

ROWS: list[Any] = [{"custom_id": f"r{i}", "prompt": f"p{i}", "max_tokens": 2} for i in range(5)]
CHATS: list[Any] = [
    {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions"}
    | {"body": {"model": "fake", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}}
    for i in range(5)
]


def run(directory: Path, rows: list[Any], name: str = "out.jsonl") -> tuple[Path, Path]:
    source, output = write_rows(directory / "in.jsonl", rows), directory / name
    make_job(source, output).run()
    return source, output


@pytest.mark.parametrize("rows", [ROWS, CHATS], ids=["plain", "openai"])
@pytest.mark.parametrize(
    "name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet", "out.arrow", "out.csv", "out.tsv.gz"]
)
def test_sound_outputs(rows: list[Any], name: str, tmp_path: Path) -> None:
    verdict = verify(*run(tmp_path, rows, name))
    assert (verdict.exit_code, verdict.rows, verdict.answers, verdict.order) == (0, 5, 5, "input")


def test_error_rows_are_counted_by_code(tmp_path: Path) -> None:
    verdict = verify(*run(tmp_path, [*ROWS, {"custom_id": "e", "prompt": ""}, b"{", b"", {"prompt": "z", "n": 0}]))
    assert (verdict.exit_code, verdict.faults, verdict.errors) == (3, 0, 3)
    assert verdict.codes == {"empty_prompt": 1, "invalid_json_line": 1, "invalid_value": 1}
    assert verdict.as_dict()["sound"] is True


def edited(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return act


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a row missing": (edited(lambda rows: rows.pop(2)), "5 input rows but 4 output rows"),
    "a row twice": (edited(lambda rows: rows.append(rows[0])), "'r0': 2 in the output"),
    "another id": (edited(lambda rows: rows[1].update(custom_id="zz")), "'zz'"),
    "cut off": (lambda path: path.write_text(path.read_text()[:-40]) and None, "not JSON"),
    "usage": (edited(lambda rows: rows[0]["usage"].update(completion_tokens=9)), "usage does not count"),
    "both": (
        edited(lambda rows: rows[0].update(error=dict.fromkeys(("message", "type", "param", "code")))),
        "an error",
    ),
    "neither": (edited(lambda rows: rows[0].update(text=None)), "no text"),
    "reason": (edited(lambda rows: rows[0].update(finish_reason="abort")), "finish_reason"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_outputs(name: str, tmp_path: Path) -> None:
    source, output = run(tmp_path, ROWS)
    act, text = BREAKS[name]
    act(output)
    verdict = verify(source, output)
    assert verdict.exit_code == 1
    assert any(text in finding for finding in verdict.findings), verdict.findings


def test_another_order_is_reported_but_sound(tmp_path: Path) -> None:
    source, output = run(tmp_path, ROWS)
    edited(list.reverse)(output)
    verdict = verify(source, output)
    assert (verdict.exit_code, verdict.order) == (0, "other")


MODULES = sorted(Path(str(verify_module.__file__)).parent.glob("verify*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.stem))
def test_it_shares_no_code_with_what_it_checks(module: Path) -> None:
    tree = ast.parse(module.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {name for name in names if name and name.startswith("umbel")}
    assert all(name == "umbel.errors" or name.startswith("umbel.jobs.verify_") for name in own)
    assert not {"orjson", "csv", "gzip"} & names
