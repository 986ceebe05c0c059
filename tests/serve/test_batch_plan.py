"""Plans of batches: what `umbel plan` says of their files."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import listening
from tests.serve.test_batch_ends import Gate
from tests.serve.test_batches import client_of, ended, made, packed, texts
from umbel.api import LLM
from umbel.cli.main import main


def test_the_plan_is_that_of_the_command(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("umbel.cost.machine.available_memory", lambda: 2**30)
    gate = Gate(monkeypatch)
    (tmp_path / "in.jsonl").write_bytes(packed(texts(20)))
    options = [
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--chunk",
        "64",
        "--served-model-name",
        "tiny",
    ]
    command = ["plan", str(tmp_path / "in.jsonl"), "-m", llm.config.model, *options]
    with listening(llm, store=tmp_path / "store") as url, client_of(url) as client:
        batch = made(client, texts(20))
        with httpx.Client(base_url=url) as http:
            path = f"/v1/batches/{batch.id}/plan"
            assert main(command) == 0
            assert http.get(path).text == capsys.readouterr().out
            assert main([*command, "-v"]) == 0
            assert http.get(path, params={"verbose": True}).text == capsys.readouterr().out
            assert main([*command, "--json"]) == 0
            found, expected = http.get(path, headers={"Accept": "application/json"}).json(), capsys.readouterr().out
            assert {**found, "about": 0} == {**json.loads(expected), "about": 0}
            page = http.get(path, headers={"Accept": "text/html,application/xhtml+xml"})
            assert page.headers["content-type"].startswith("text/html") and f"Plan of {batch.id}" in page.text
            assert http.get(path, params={"format": "pdf"}).status_code == 400
            gate.opened.set()
            assert ended(client, batch).status == "completed"
            assert http.get(path, params={"format": "json"}).json() == found
