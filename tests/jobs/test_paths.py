"""The files of a job: what is not its own is never replaced, followed or waited for; its own are its owner's alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, make_job, write_rows
from umbel.errors import UsageError
from umbel.ir.budget import Budget
from umbel.jobs.paths import JobPaths, check_paths, kind_of, store_path
from umbel.jobs.store_file import STORE_SUFFIXES

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(12)]
MINE = b"somebody's work\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> bytes:
    """What the job writes where nothing is in its way."""
    (tmp_path / "elsewhere").mkdir()
    make_job(source, tmp_path / "elsewhere" / "out").run()
    return (tmp_path / "elsewhere" / "out").read_bytes()


def listing(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(os.path.relpath(path))  # the name of a socket must be short


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "directory": Path.mkdir,
    "link to a pipe": lambda path: (os.mkfifo(f"{path}.pipe"), path.symlink_to(f"{path}.pipe")),
    "link to a directory": lambda path: path.symlink_to(path.parent),
    "link to itself": lambda path: path.symlink_to(path),
    "link into nothing": lambda path: path.symlink_to("nowhere/out"),
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_is_no_output(name: str, fresh: bool, source: Path, tmp_path: Path) -> None:
    ODD[name](tmp_path / "out")
    before = listing(tmp_path), (tmp_path / "out").lstat().st_mode
    with pytest.raises(UsageError, match=r"output .*out: "):
        make_job(source, tmp_path / "out", fresh=fresh).run()
    assert (listing(tmp_path), (tmp_path / "out").lstat().st_mode) == before


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-", "/", ".", ".."])
def test_streams_and_devices_are_refused_before_anything_is_opened(name: str, source: Path) -> None:
    with pytest.raises(UsageError, match=r"^output .*give (the name of one|a file name)$"):
        check_paths([source], Path(name))


def test_kinds() -> None:
    assert kind_of(Path("/dev/null")) == "a device"
    assert kind_of(Path(__file__)) == kind_of(Path(__file__).with_name("nothing")) == ""


def test_names_that_leave_no_room_beside_them(source: Path, tmp_path: Path) -> None:
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    longest = next(n for n in range(most, 0, -1) if not refused(source, tmp_path / ("x" * n)))
    assert 0 < most - longest < 20
    assert make_job(source, tmp_path / ("x" * longest)).run().exit_code == 0
    for n in (longest + 1, most, most + 1, 5_000):
        for letter in ("x", "\N{HIRAGANA LETTER A}"):
            with pytest.raises(UsageError, match=r"^output x|^output .*name"):
                make_job(source, tmp_path / (letter * n)).run()


def refused(source: Path, output: Path) -> bool:
    try:
        check_paths([source], output)
    except UsageError:
        return True
    return False


@pytest.mark.parametrize("there", [False, True])
def test_a_link_stays_and_what_it_names_is_written(there: bool, source: Path, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/out")
    if there:
        (tmp_path / "far" / "out").write_bytes(MINE)
        with pytest.raises(UsageError, match="no job store beside it made it"):
            make_job(source, tmp_path / "link").run()
    make_job(source, tmp_path / "link", fresh=there).run()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "out").read_bytes() == expected
    assert listing(tmp_path / "far") == ["out", "out.umbel"]
    assert store_path(tmp_path / "link") == tmp_path / "far" / "out.umbel"
    assert make_job(source, tmp_path / "far" / "out").run().status == "already_complete"


PLANTED = [f".umbel{suffix}" for suffix in STORE_SUFFIXES]


@pytest.mark.parametrize("suffix", PLANTED)
@pytest.mark.parametrize("dangling", [False, True])
def test_planted_links_are_not_followed(
    suffix: str, dangling: bool, source: Path, expected: bytes, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_bytes(MINE)
    (tmp_path / f"out{suffix}").symlink_to(victim)
    with pytest.raises(Exception, match=r"is a link.*--overwrite"):
        make_job(source, tmp_path / "out").run()
    make_job(source, tmp_path / "out", fresh=True).run()
    assert (tmp_path / "out").read_bytes() == expected
    assert victim.read_bytes() == MINE if not dangling else not victim.exists()


def test_the_part_has_a_name_that_nobody_knows(source: Path, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(MINE)
    (tmp_path / ".out.part").symlink_to(tmp_path / "victim")
    names: set[str] = set()

    def look(name: str) -> None:
        if name == "output.open.after":
            names.update(entry for entry in listing(tmp_path) if entry.endswith(".part"))

    make_job(source, tmp_path / "out", at=look).run()
    (tmp_path / "out").unlink()
    make_job(source, tmp_path / "out", at=look).run()
    assert len(names) == 3  # the link, and another part for each run
    assert (tmp_path / "victim").read_bytes() == MINE
    assert (tmp_path / ".out.part").is_symlink()


def test_who_may_read(source: Path, tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def look(name: str) -> None:
        for entry in tmp_path.iterdir() if name in ("store.commit.after", "output.write.after") else ():
            seen[entry.suffix] = stat.S_IMODE(entry.stat().st_mode)

    before = os.umask(0o022)
    try:
        make_job(source, tmp_path / "out", at=look).run()
    finally:
        os.umask(before)
    assert seen[".umbel"] == seen[".umbel-wal"] == 0o600
    assert seen[".part"] == stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o644


@pytest.mark.parametrize("moment", ["store.commit.after", "output.write.after", "output.rename.before"])
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_left_alone(
    moment: str, links: bool, source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    output = tmp_path / "out"

    def appear(name: str) -> None:
        if name == moment:
            output.write_bytes(MINE)

    with pytest.raises(UsageError, match=r"appeared or was changed while this job ran.*which only writes them"):
        make_job(source, output, at=appear).run()
    assert output.read_bytes() == MINE
    assert not [name for name in listing(tmp_path) if name.endswith(".part")]
    output.rename(tmp_path / "moved")  # as the message says
    engine = FakeEngine()
    make_job(source, output, engine).run()
    assert (output.read_bytes(), engine.seen) == (expected, [])


def no_links(*given: object, **more: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_hard_links(
    source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out").read_bytes() == expected
    assert listing(tmp_path) == ["elsewhere", "in.jsonl", "out", "out.umbel"]


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(MINE), lambda path: path.symlink_to("in.jsonl")])
def test_a_partial_output_that_is_changed_meanwhile_is_left_alone(
    change: Callable[[Path], object], source: Path, tmp_path: Path
) -> None:
    output, before = tmp_path / "out", source.read_bytes()
    assert make_job(source, output, budget=Budget(output_tokens=20)).run().status == "budget"

    def alter(name: str) -> None:
        if name == "store.commit.after":
            output.unlink()
            change(output)

    with pytest.raises(UsageError, match=r"output .*out: .*run the same command again"):
        make_job(source, output, at=alter).run()
    assert source.read_bytes() == before
    output.unlink()
    engine = FakeEngine()
    assert make_job(source, output, engine).run().status == "complete"
    assert engine.seen == []


def test_what_a_killed_run_left_goes_and_what_is_not_ours_stays(source: Path, tmp_path: Path) -> None:
    ours, others = (
        ".out.0123abcd.part",
        [".out.part", ".out.notes.0123abcd.part", ".in.jsonl.0123abcd.part", "out.part"],
    )
    for name in (ours, *others):
        (tmp_path / name).write_bytes(MINE)
    make_job(source, tmp_path / "out").run()
    assert listing(tmp_path) == sorted([*others, "in.jsonl", "out", "out.umbel"])


def through_links(*names: str) -> list[tuple[str, Callable[[Path, Path], None] | None]]:
    """Each name itself, by a link and by a hard link; of a part a hard link is another file as soon as it goes."""
    found = [(name, how) for name in names for how in (None, os.symlink, os.link)]
    return [*found, (".out.0123abcd.part", None), (".out.0123abcd.part", os.symlink)]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("name", "how"), through_links("out", *(f"out{suffix}" for suffix in PLANTED)))
def test_an_input_that_the_job_would_write_is_refused(
    name: str, how: Callable[[Path, Path], None] | None, fresh: bool, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / name, ROWS)
    source = rows
    if how is not None:
        how(rows, source := tmp_path / "other-name.jsonl")
    before = rows.read_bytes()
    with pytest.raises(UsageError, match=r"would overwrite the input.*choose another name"):
        make_job(source, tmp_path / "out", fresh=fresh).run()
    assert rows.read_bytes() == before
    make_job(source, tmp_path / "another-name").run()


@pytest.mark.parametrize(
    ("name", "how"), through_links("in.jsonl", "out", "out.umbel", "out.umbel-wal", "out.umbel-journal", "s.json")
)
def test_nothing_else_is_written_over_a_file_of_the_job(
    name: str, how: Callable[[Path, Path], None] | None, source: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    if how is not None:
        path.touch()
        how(path, path := tmp_path / "other-name")
    job = JobPaths((source,), tmp_path / "out").with_extra("--summary", tmp_path / "s.json", b"{")
    with pytest.raises(
        UsageError, match=r"^--html .*: is the .* of this job; choose another name$|^--html .* this job"
    ):
        job.with_extra("--html", path, b"<")
    job.with_extra("--html", tmp_path / "page.html", b"<")


def test_what_another_wrote_is_not_replaced(source: Path, tmp_path: Path) -> None:
    job = JobPaths((source,), tmp_path / "out")
    (tmp_path / "s.json").write_bytes(MINE)
    with pytest.raises(UsageError, match="exists and was not written by --summary; choose another name"):
        job.with_extra("--summary", tmp_path / "s.json", b"{")
    for ours in (b"", b"{}"):
        (tmp_path / "s.json").write_bytes(ours)
        job.with_extra("--summary", tmp_path / "s.json", b"{")
    for name, why in (("nowhere/s", "no directory"), (".", "is a directory"), ("x" * 300, "too long")):
        with pytest.raises(UsageError, match=why):
            job.with_extra("--summary", tmp_path / name, b"{")
