"""Every piece of advice works: what a message says to do is done, word for word, until the answers are there."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, make_job, write_rows
from tests.jobs.test_paths import make_socket
from umbel.errors import ModelError, StoreMismatch, UmbelError
from umbel.jobs.store import JobStore

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(60)]
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished") / "place"
    place.mkdir()
    make_job(write_rows(place / "in.jsonl", ROWS), place / "out").run()
    return place


def run(place: Path, *, fresh: bool = False, output: str = "out") -> str:
    """Run the job; what it says when it fails, else ''."""
    try:
        assert make_job(place / "in.jsonl", place / output, fresh=fresh).run().exit_code == 0
    except UmbelError as error:
        return str(error)
    return ""


def advised(message: str) -> Iterator[tuple[str, Callable[[Path], str]]]:
    """Everything that a message says can be done, as what does it."""
    (named, *_) = re.findall(r"^(?:output )?(\S+?):? ", message)
    if "--overwrite" in message:
        yield "fresh", lambda place: run(place, fresh=True)
    if re.search("(run|which) .*again", message):
        yield "again", run
    if re.search("(choose|use) another", message):
        yield "another", lambda place: run(place, output="another")
    if re.search(r"move \S+ away", message):

        def moved(place: Path) -> str:
            os.rename(place / Path(named).name, place / f"{Path(named).name}.moved")
            return run(place)

        yield "move", moved


def follow_all(place: Path, message: str, expected: bytes, depth: int = 3) -> set[str]:
    """Follow each piece of advice, each in a copy of the place as it is; the names of all."""
    steps = dict(advised(message))
    assert steps and depth, message
    for name, act in steps.items():
        copy = place.with_name(f"{place.name}-{name}")
        copy_place(place, copy)
        found = act(copy)
        if found:
            follow_all(copy, found, expected, depth - 1)
        else:
            assert (copy / ("another" if name == "another" else "out")).read_bytes() == expected
    return set(steps)


def copy_place(place: Path, copy: Path) -> None:
    """A copy with links, pipes and sockets as they are."""
    copy.mkdir()
    for entry in place.iterdir():
        if entry.is_symlink():
            (copy / entry.name).symlink_to(os.readlink(entry))
        elif entry.is_fifo():
            os.mkfifo(copy / entry.name)
        elif entry.is_socket():
            make_socket(copy / entry.name)
        elif entry.is_dir():
            shutil.copytree(entry, copy / entry.name)
        else:
            shutil.copy(entry, copy / entry.name)


def bytes_at(at: int, data: bytes) -> Damage:
    def damage(store: Path) -> None:
        with open(store, "r+b") as stream:
            stream.seek(at)
            stream.write(data)

    return damage


def statement(text: str) -> Damage:
    def damage(store: Path) -> None:
        db = sqlite3.connect(store)
        db.executescript(text)
        db.close()

    return damage


def instead(make: Damage, suffix: str = "") -> Damage:
    def damage(store: Path) -> None:
        (path := store.with_name(store.name + suffix)).unlink(missing_ok=True)
        make(path)

    return damage


def filled_directory(path: Path) -> None:
    path.mkdir()
    (path / "work").write_bytes(b"somebody's work\n")


def another_program(path: Path) -> None:
    statement("CREATE TABLE theirs (x)")(path)


def cut(size: int) -> Damage:
    return lambda store: os.truncate(store, size)


DAMAGES: dict[str, Damage] = {
    "text": lambda store: store.write_bytes(b"not a database, but long enough to be looked at" * 40),
    "zeros": lambda store: store.write_bytes(bytes(20_000)),
    "random": lambda store: store.write_bytes(random.Random(1).randbytes(20_000)),
    "its magic alone": lambda store: store.write_bytes(b"SQLite format 3\x00" * 99),
    "the page size": bytes_at(16, b"\x07\x07"),
    "a version that cannot be written": bytes_at(18, b"\x03"),
    "a version that cannot be read": bytes_at(19, b"\x03"),
    "the schema": bytes_at(100, b"\xff" * 300),
    "the second page": bytes_at(4_096, b"\xff" * 200),
    "another text encoding": bytes_at(56, b"\x00\x00\x00\x02"),
    "cut in the header": cut(50),
    "cut after a page": cut(4_096),
    "cut in a page": cut(6_000),
    "a table too many": statement("CREATE TABLE more (x)"),
    "a table of another form": statement("ALTER TABLE results ADD COLUMN more"),
    "no application": statement("PRAGMA application_id = 7"),
    "the fingerprint": statement("UPDATE job SET value = '{}' WHERE name = 'fingerprint'"),
    "another fingerprint": statement("UPDATE job SET value = '{}', crc = 2745614147 WHERE name = 'fingerprint'"),
    "the plan": statement("UPDATE job SET value = 'x' WHERE name = 'plan'"),
    "the counters": statement("UPDATE job SET crc = 1 WHERE name = 'live'"),
    "the moment of the start": statement("UPDATE job SET crc = 1 WHERE name = 'started'"),
    "a row before the first": statement("UPDATE results SET row = -5 WHERE row = 3"),
    "a row beyond any": statement("UPDATE results SET row = 1 << 50 WHERE row = 3"),
    "a line": statement("UPDATE results SET line = x'00' WHERE row = 3"),
    "a line of text": statement("UPDATE results SET line = 'x' WHERE row = 3"),
    "a count without end": statement("UPDATE results SET prompt_tokens = 9e999 WHERE row = 3"),
    "a code of bytes": statement("UPDATE results SET code = x'ff' WHERE row = 3"),
    "the store gone": lambda store: store.unlink(),
    "an empty file": instead(Path.touch),
    "a directory": instead(Path.mkdir),
    "a directory with files": instead(filled_directory),
    "a pipe": instead(os.mkfifo),
    "a socket": instead(make_socket),
    "a link": instead(lambda path: (path.with_name("victim").write_bytes(b"x" * 99), path.symlink_to("victim"))),
    "a link into nothing": instead(lambda path: path.symlink_to("nothing")),
    "another program's database": instead(another_program),
    "random bytes in the log": lambda store: Path(f"{store}-wal").write_bytes(random.Random(2).randbytes(9_000)),
    "random bytes in the journal": lambda store: Path(f"{store}-journal").write_bytes(
        random.Random(2).randbytes(9_000)
    ),
    "a log that is a directory": instead(Path.mkdir, "-wal"),
    "a log that is a pipe": instead(os.mkfifo, "-wal"),
    "a log that is a link": instead(
        lambda path: (path.with_name("victim").write_bytes(b"x" * 99), path.symlink_to("victim")), "-wal"
    ),
}


@pytest.mark.parametrize("output_there", [False, True])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_store(name: str, output_there: bool, finished: Path, tmp_path: Path) -> None:
    expected = (finished / "out").read_bytes()
    copy_place(finished, place := tmp_path / "place")
    if not output_there:
        (place / "out").unlink()
    DAMAGES[name](place / "out.umbel")
    copy_place(place, literally := tmp_path / "literally")
    if message := run(literally):
        assert "(ok)" not in message
        follow_all(literally, message, expected)
        if "with files" not in name and "program" not in name and "no application" not in name:
            copy_place(place, again := tmp_path / "again")
            assert run(again, fresh=True) == ""
            assert (again / "out").read_bytes() == expected
    else:
        assert (literally / "out").read_bytes() == expected
    assert (place / "in.jsonl").read_bytes() == (finished / "in.jsonl").read_bytes()


def test_what_is_not_ours_survives_fresh(finished: Path, tmp_path: Path) -> None:
    for name in ("a directory with files", "another program's database"):
        copy_place(finished, place := tmp_path / name)
        DAMAGES[name](place / "out.umbel")
        assert "move it away" in run(place, fresh=True)
        assert (place / "out.umbel").exists()


def test_a_changed_output(finished: Path, tmp_path: Path) -> None:
    copy_place(finished, place := tmp_path / "place")
    (place / "out").write_bytes(b"changed\n")
    message = run(place)
    assert "was changed after this job wrote it" in message
    assert follow_all(place, message, (finished / "out").read_bytes()) == {"fresh", "another", "move"}


def test_an_output_that_no_job_made(finished: Path, tmp_path: Path) -> None:
    (place := tmp_path / "place").mkdir()
    shutil.copy(finished / "in.jsonl", place)
    (place / "out").write_bytes(b"somebody's work\n")
    message = run(place)
    assert follow_all(place, message, (finished / "out").read_bytes()) == {"fresh", "another", "move"}
    assert sorted(os.listdir(place)) == ["in.jsonl", "out"]


def test_another_job(finished: Path, tmp_path: Path) -> None:
    copy_place(finished, place := tmp_path / "place")
    with pytest.raises(StoreMismatch, match="belongs to another job") as caught:
        make_job(place / "in.jsonl", place / "out", version="2").run()
    assert follow_all(place, str(caught.value), (finished / "out").read_bytes()) == {"fresh", "another"}


@pytest.mark.parametrize("gone", ["the store", "the directory"])
@pytest.mark.parametrize("moment", ["output.open.before", "output.write.before", "output.fsync.before"])
def test_what_is_said_of_results_is_true(gone: str, moment: str, finished: Path, tmp_path: Path) -> None:
    copy_place(finished, place := tmp_path / "place")
    for name in ("out", "out.umbel"):
        (place / name).unlink()
    (inner := place / "inner").mkdir()

    def act(name: str) -> None:
        if name == moment:
            if gone == "the directory":
                shutil.rmtree(inner)
            else:
                (inner / "out.umbel").unlink()
            raise OSError(28, "No space left on device")

    with pytest.raises(UmbelError) as caught:
        make_job(place / "in.jsonl", inner / "out", at=act).run()
    message = str(caught.value)
    assert "is gone, and with it what was finished" in message and "safe" not in message
    if match := re.search("make (.*) again and run", message):
        Path(match[1]).mkdir()
    assert (match is not None) == (gone == "the directory")
    engine = FakeEngine()
    make_job(place / "in.jsonl", inner / "out", engine).run()
    assert (len(engine.seen), (inner / "out").read_bytes()) == (len(ROWS), (finished / "out").read_bytes())


def test_a_full_disk(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "in.jsonl", tmp_path)

    def act(name: str) -> None:
        if name == "output.write.after":
            raise OSError(28, "No space left on device")

    with pytest.raises(UmbelError, match=rf"is safe in {tmp_path}/out.umbel: free space"):
        make_job(tmp_path / "in.jsonl", tmp_path / "out", at=act).run()
    engine = FakeEngine()
    make_job(tmp_path / "in.jsonl", tmp_path / "out", engine).run()
    assert (engine.seen, (tmp_path / "out").read_bytes()) == ([], (finished / "out").read_bytes())


def test_the_bytes_on_disk_are_those_of_the_store_and_its_log(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "s")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UmbelError) as caught:
        store.put(much="x" * 500_000)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert f"{sum(sizes):,} bytes on disk" in str(caught.value)
    assert len(sizes) > 1
    store.close()


def unloadable() -> FakeEngine:
    raise ModelError("model.safetensors: cut off; fetch it again")


@pytest.mark.parametrize("rows", [ROWS, [{"prompt": ""}, *ROWS]])
def test_a_model_that_does_not_load_leaves_nothing(rows: list[dict[str, object]], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows)
    job = make_job(source, tmp_path / "out")
    job.load = unloadable
    with pytest.raises(ModelError):
        job.run()
    assert os.listdir(tmp_path) == ["in.jsonl"]
    assert make_job(source, tmp_path / "out", version="2").run().rows == len(rows)
