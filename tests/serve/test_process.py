"""`umbel serve` as a process: it says where it listens, and a stop lets streams come to their end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from umbel.cli.main import main

CANARY = "umbra-0451-canary"


@contextmanager
def started(*options: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its address, and the lines that it has printed."""
    command = [sys.executable, "-m", "umbel", "serve", "-m", "demo", "--port", "0", *options]
    lines = list[str]()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | env) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                lines.append(line)
                if "listens at" in line:
                    break
            (url,) = re.findall(r"listens at (http://\S+)", "".join(lines)) or ["".join(lines)]
            yield process, url, lines
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_streams_end(number: signal.Signals) -> None:
    with started() as (process, url, _):
        body = {"prompt": CANARY, "max_tokens": 200, "ignore_eos": True, "stream": True}
        n_parts, text = 0, ""
        with httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                n_parts += bool(line)
                if line and n_parts == 2:
                    process.send_signal(number)  # once: a second Ctrl-C does not wait
                text = line or text
        assert text == "data: [DONE]" and n_parts > 20
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None and CANARY not in process.stderr.read()


@pytest.mark.slow
def test_a_key_from_the_environment_and_what_is_logged() -> None:
    with started(UMBEL_API_KEY=CANARY) as (process, url, lines):
        assert httpx.get(url + "/v1/models").status_code == 401
        headers = {"authorization": f"Bearer {CANARY}"}
        for prompt in (CANARY, [CANARY, 5], {"a": CANARY}):
            httpx.post(url + "/v1/completions", json={"prompt": prompt, "max_tokens": 2}, headers=headers)
        figures = httpx.get(url + "/metrics", headers=headers).text
        assert "vllm:request_success_total" in figures and CANARY not in figures
        httpx.post(url + f"/v1/{CANARY}", content=b"\xff" * 100, headers=headers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None and CANARY not in "".join(lines) + process.stderr.read()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--api-key"),
        (["--ttft-target", "0"], "--ttft-target"),
        (["--chat-template-kwargs", "{"], "--chat-template-kwargs"),
        (["--api-key", " "], "--api-key"),
    ],
)
def test_what_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "-m", "demo", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "-m", "demo", "--port", url.rpartition(":")[2]]) == 1
    assert "in use; --port N" in capsys.readouterr().err


def test_the_schema_is_there(client: httpx.Client) -> None:
    found = client.get("/openapi.json").json()
    assert {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings"} <= set(found["paths"])
    assert json.dumps(found)
