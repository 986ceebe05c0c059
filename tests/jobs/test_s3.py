"""Jobs between objects of an S3 server: killed in the middle, refused, cut off; nothing is lost and nothing doubled."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.held import PATIENCE, held
from tests.jobs.fakes import FakeEngine, write_rows
from tests.jobs.object_store import BUCKET, READER, ObjectStore
from tests.tiny_models import make_model
from umbel.batch import loading
from umbel.cli.main import main
from umbel.errors import DiskFull, InputError, UsageError
from umbel.jobs.write.remote_output import place_of

ROWS = [{"custom_id": f"r{i}", "prompt": f"text {i}", "max_tokens": 3} for i in range(40)]
IN, OUT = f"s3://{BUCKET}/data/in.jsonl", f"s3://{BUCKET}/out/out.jsonl"
run = partial(umbel.run, quiet=True)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("s3") / "tiny"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Iterator[ObjectStore]:
    """An empty store with the input in it, which this process and those that it starts find by their environment."""
    store = ObjectStore()
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": "all",
        "AWS_SECRET_ACCESS_KEY": "all",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    store.client("s3").put_object(Bucket=BUCKET, Key="data/in.jsonl", Body=source.read_bytes())
    yield store
    S3FileSystem.clear_instance_cache()
    store.close()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(loading, "_load", lambda *given: fake)
    return fake


def test_killed_in_the_middle_and_while_publishing(store: ObjectStore, model: str, tmp_path: Path) -> None:
    """Each answer is there once, and the object is there whole or not at all."""
    options = ["--model", model, "--dtype", "float32", "--threads", "1", "--temperature", "0.8", "--quiet"]
    assert main(["run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "whole.jsonl"), *options]) == 0
    command = ["run", f"s3://{BUCKET}/data/*.jsonl", "-o", OUT, *options, "--summary", str(tmp_path / "summary")]
    with held(tmp_path / "mark", command) as process:
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert store.names() == ["data/in.jsonl"]
    arrives, gone = threading.Event(), threading.Event()

    def hold(environ: dict[str, Any]) -> None:
        if not uploads(environ):
            return
        environ["wsgi.input"].read(100)
        arrives.set()
        gone.wait(PATIENCE)
        cut(environ)

    store.before_put = hold
    process = subprocess.Popen([sys.executable, "-m", "umbel.cli.main", *command])
    assert arrives.wait(PATIENCE)
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    gone.set()
    assert store.names() == ["data/in.jsonl"]
    store.before_put = lambda environ: None
    assert main(command) == 0
    summary = json.loads((tmp_path / "summary").read_text())
    assert (summary["status"], summary["resumed"], summary["output"]) == ("already_complete", len(ROWS), OUT)
    assert store.read("out/out.jsonl") == (tmp_path / "whole.jsonl").read_bytes()
    assert store.names() == ["data/in.jsonl", "out/out.jsonl"] and not store.unfinished(), "and nothing beside them"


@pytest.mark.parametrize(
    ("allowed", "output", "says"),
    [
        (READER, OUT, "cannot be written: PermissionError: Access Denied; nothing was run.*s3:PutObject"),
        (["s3:PutObject"], OUT, "cannot be reached: PermissionError: .*; nothing was run.*s3:ListBucket"),
        ([*READER, "s3:PutObject"], "s3://other/out.jsonl", "cannot be written: FileNotFoundError: .*mend the name"),
    ],
    ids=["reads only", "writes only", "no bucket"],
)
def test_who_may_not_write_there_is_told_before_anything_runs(
    allowed: list[str],
    output: str,
    says: str,
    store: ObjectStore,
    model: str,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with store.user(*allowed) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=says):
            run(IN, output, model=model)
    assert not engine.seen and store.names() == ["data/in.jsonl"]


def test_who_may_not_read_is_told(
    store: ObjectStore, model: str, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with store.user("s3:PutObject") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=r"in\.jsonl: cannot be read: PermissionError.*; nothing was run"):
            run(IN, tmp_path / "out.jsonl", model=model)


def test_a_write_that_is_cut_off_loses_nothing(store: ObjectStore, model: str, engine: FakeEngine) -> None:
    store.before_put = lambda environ: cut(environ) if uploads(environ) else None
    with pytest.raises(DiskFull, match=r"cannot be published: .*; all answers are in .*run the same command again"):
        run(IN, OUT, model=model)
    assert store.names() == ["data/in.jsonl"] and len(engine.seen) == len(ROWS)
    store.before_put = lambda environ: None
    assert run(IN, OUT, model=model).status == "already_complete" and len(engine.seen) == len(ROWS)
    assert store.read("out/out.jsonl") == place_of(OUT).read_bytes()


def uploads(environ: dict[str, Any]) -> bool:
    """Whether a request brings the output, not only the byte that tries whether one may write."""
    return "uploadId" not in environ["QUERY_STRING"] and str(environ["PATH_INFO"]).endswith("/out.jsonl")


def cut(environ: dict[str, Any]) -> None:
    """End a connection in the middle of what it brings."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("cut off")
