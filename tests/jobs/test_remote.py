"""Inputs and outputs under URIs: copied before they are read, published when they are complete; nothing is lost where
that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec.core
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import umbel
from tests.jobs.fakes import FakeEngine, read_rows, write_rows
from tests.tiny_models import make_model
from umbel.batch import loading
from umbel.cli.main import main
from umbel.errors import DiskFull, InputError, UsageError
from umbel.jobs.read.spool import opened
from umbel.jobs.remote import is_uri, matches, public_name
from umbel.jobs.write.remote_output import RemoteOutput, place_of

ROWS = [{"custom_id": f"r{i}", "prompt": f"text {i}", "max_tokens": 3} for i in range(6)]
OUT = "memory://answers/out.jsonl"
run = partial(umbel.run, quiet=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("remote") / "tiny"))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(loading, "_load", lambda *given: fake)
    return fake


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryFileSystem:
    """An empty store of files in memory, and a cache of the test's own."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setenv("UMBEL_CACHE", str(tmp_path / "cache"))
    return MemoryFileSystem()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


def test_a_job_between_uris(
    source: Path, model: str, engine: FakeEngine, memory: MemoryFileSystem, tmp_path: Path
) -> None:
    run(source, tmp_path / "out.jsonl", model=model)
    memory.pipe("/data/in.jsonl", source.read_bytes())
    summary = run("memory://data/in.jsonl", OUT, model=model)
    assert (summary.status, summary.output) == ("complete", OUT)
    assert memory.cat("/answers/out.jsonl") == (tmp_path / "out.jsonl").read_bytes()
    assert memory.ls("/answers", detail=False) == ["/answers/out.jsonl"], "and nothing beside it"
    before = memory.modified("/answers/out.jsonl")
    assert run("memory://data/in.jsonl", OUT, model=model).status == "already_complete" and len(engine.seen) == 12
    assert memory.modified("/answers/out.jsonl") == before, "what is there is not published again"
    assert not list(tmp_path.rglob(".umbel-input-*")), "the copy of the input is gone"
    memory.pipe("/data/in.jsonl", source.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"input\.sha256"):
        run("memory://data/in.jsonl", OUT, model=model)


def test_commands_take_uris(
    source: Path, model: str, engine: FakeEngine, memory: MemoryFileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.pipe("/data/in.jsonl", source.read_bytes())
    names = ["memory://data/in.jsonl", str(source)]
    assert main(["run", *names, "-o", OUT, "-m", model, "-q"]) == 3, "the ids are there twice"
    assert [row["file"] for row in read_rows(place_of(OUT))] == [names[0]] * 6 + [names[1]] * 6
    assert main(["verify", *names, OUT]) == 3
    assert main(["plan", names[0], "-m", model, "--json"]) == 0
    for command in ("status", "report", "export", "clean"):
        capsys.readouterr()
        assert main([command, OUT]) == 0, command
    assert main(["status", OUT]) == 2


def test_a_pattern_of_uris(source: Path, memory: MemoryFileSystem) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.csv", "deep/d.jsonl"):
        memory.pipe(f"/data/{name}", source.read_bytes())
    with opened(["memory://data/*.jsonl"]) as files:
        assert [file.name for file in files] == matches("memory://data/[ab].jsonl")
        assert [file.name.rpartition("/")[2] for file in files] == ["a.jsonl", "b.jsonl"]
        assert all(file.path.read_bytes() == source.read_bytes() and file.path.suffix == ".jsonl" for file in files)
    with pytest.raises(UsageError, match=r"input memory://data/x\*: no file matches"):
        matches("memory://data/x*")


def test_another_file_is_not_replaced(source: Path, model: str, engine: FakeEngine, memory: MemoryFileSystem) -> None:
    memory.pipe("/answers/out.jsonl", b"somebody's work")
    with pytest.raises(UsageError, match=r"exists, and was not published from here.*overwrite"):
        run(source, OUT, model=model)
    assert not engine.seen and memory.cat("/answers/out.jsonl") == b"somebody's work"
    assert run(source, OUT, model=model, overwrite=True).ok == 6
    assert memory.cat("/answers/out.jsonl") == place_of(OUT).read_bytes()


@pytest.mark.parametrize("step", ["put_file", "mv"])  # where whole files appear: test_s3.py
def test_what_cannot_be_published_is_kept(
    step: str, source: Path, model: str, engine: FakeEngine, memory: MemoryFileSystem
) -> None:
    def fails(self: MemoryFileSystem, here: str, there: str, **more: Any) -> None:
        if step == "put_file":
            self.pipe(there, b"half")
        raise ConnectionError("the line is dead")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, step, fails)
        with pytest.raises(
            DiskFull, match=r"cannot be published: ConnectionError: the line is dead; all answers are in"
        ):
            run(source, OUT, model=model)
    assert not [path for path in memory.find("/") if path.startswith("/answers")], "no half of it is left"
    assert run(source, OUT, model=model).status == "already_complete" and len(engine.seen) == 6
    assert memory.cat("/answers/out.jsonl") == place_of(OUT).read_bytes()


def test_a_part_is_published_and_then_the_whole(
    source: Path, model: str, engine: FakeEngine, memory: MemoryFileSystem
) -> None:
    assert run(source, OUT, model=model, max_output_tokens_total=7).status == "budget"
    assert memory.cat("/answers/out.jsonl").count(b"budget_exceeded") > 0
    assert run(source, OUT, model=model).ok == 6
    assert memory.cat("/answers/out.jsonl") == place_of(OUT).read_bytes()


def test_a_file_that_only_looks_published(memory: MemoryFileSystem) -> None:
    remote = RemoteOutput(OUT)
    remote.prepare(fresh=False)
    remote.local.write_bytes(b"new")
    memory.pipe("/answers/out.jsonl", b"old")
    with pytest.MonkeyPatch.context() as patch:  # killed while it was put there
        patch.setattr(RemoteOutput, "_put", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remote.publish()
    remote.prepare(fresh=False)
    remote.publish()
    assert memory.cat("/answers/out.jsonl") == b"new"


@pytest.mark.parametrize("scheme, package", [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs"), ("https", "aiohttp")])
def test_a_missing_package_is_named(scheme: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(uri: str) -> None:
        raise ImportError("install something")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    says = rf"{scheme}:// needs a package that is not there: install {package}"
    with pytest.raises(UsageError, match=says), opened([f"{scheme}://bucket/in.jsonl"]):
        pass


@pytest.mark.parametrize(
    "output, says",
    [("nope://x.jsonl", "nope"), ("https://h/x.jsonl", "can be read only"), ("memory://", "names no file"),
     ("memory://a/x.doc", "no format")],
)  # fmt: skip
def test_outputs_that_cannot_be(output: str, says: str, source: Path, model: str) -> None:
    with pytest.raises(UsageError, match=says):
        run(source, output, model=model)


def test_names() -> None:
    assert is_uri("s3://b/x") and is_uri("hf://datasets/a/b") and not is_uri("C:/x") and not is_uri("a/b://c"[2:3])
    assert public_name("https://me:secret@h/a.csv?sig=1#x") == "https://h/a.csv"
    assert public_name("-") == "-" and place_of("out.jsonl") == Path("out.jsonl")


class Handler(BaseHTTPRequestHandler):
    """Files of a server: one whole, one that ends too soon, no other."""

    data = b""

    def do_GET(self) -> None:
        whole, half = self.path.startswith("/in.jsonl"), self.path == "/half.jsonl"
        self.send_response(200 if whole or half else 404)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data if whole else self.data[: len(self.data) // 2])

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture
def server(source: Path) -> Iterator[str]:
    Handler.data = source.read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_http(server: str, source: Path, tmp_path: Path) -> None:
    with opened([f"{server}/in.jsonl?key=secret"], tmp_path) as (file,):
        assert (file.name, file.path.read_bytes()) == (f"{server}/in.jsonl", source.read_bytes())
    with pytest.raises(UsageError, match=r"missing\.jsonl: no such file"), opened([f"{server}/missing.jsonl"]):
        pass
    half = opened([f"{server}/half.jsonl"], tmp_path)
    with pytest.raises(InputError, match=r"half\.jsonl: cannot be read.*nothing was run"), half:
        pass
    nobody = opened(["http://127.0.0.1:9/in.jsonl"], tmp_path)
    with pytest.raises(InputError, match=r"input http://127\.0\.0\.1:9/in\.jsonl: cannot be read: .*9"), nobody:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"], "no copy is left"


def test_messages_name_the_uri_instead_of_its_copy(memory: MemoryFileSystem, model: str, engine: FakeEngine) -> None:
    memory.pipe("/data/in.jsonl", b"%PDF-1.7")
    with pytest.raises(InputError, match=r"^input memory://data/in\.jsonl: is a PDF"):
        run("memory://data/in.jsonl", OUT, model=model)
