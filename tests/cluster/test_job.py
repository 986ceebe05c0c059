"""`umbel run --data-parallel-size 2`: drained, killed and resumed, the bytes of one replica; no process is left."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from tests.cluster.test_replicas import ended
from tests.held import COMMITTED, HELD, PATIENCE, held, wait_until
from tests.tiny_models import make_model
from umbel.cli.main import main
from umbel.jobs.report.report import read_report
from umbel.jobs.verify import verify

N_ROWS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an input: two shared beginnings, rows that draw, rows of one kind twice, and one that is at fault."""
    place = tmp_path_factory.mktemp("job")
    make_model(place / "tiny", "qwen3")
    rng = random.Random(1)
    rows = [
        {"prompt": f"{'Classify the text' if i % 3 else 'Read'} {rng.random()}", "max_tokens": 4 + i % 40}
        for i in range(N_ROWS)
    ]
    rows += [{"prompt": "twice", "temperature": 0.0, "max_tokens": 5}] * 2 + [{"prompt": ""}]
    (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def arguments(place: Path, output: str, replicas: int) -> list[str]:
    given = ["run", str(place / "in.jsonl"), "-o", str(place / output), "--model", str(place / "tiny")]
    given += ["--dtype", "float32", "--threads", "1", "--temperature", "0.8", "--data-parallel-size", str(replicas)]
    return [*given, "--chunk", "8", "--kv-tokens", "512", "--summary", str(place / f"{output}.summary")]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_drained_killed_and_resumed(place: Path) -> None:
    assert main(arguments(place, "whole", 1)) == 3
    kept = {signal.SIGTERM: (75, HELD), signal.SIGKILL: (-9, HELD + COMMITTED)}
    for number, (code, _) in kept.items():
        mark = place / f"{number.name}.held"
        with held(mark, arguments(place, "out", 2)) as process:
            replicas = children(process.pid)
            process.send_signal(number)
            assert process.wait(PATIENCE) == code and len(replicas) == 2
        wait_until(lambda: all(map(ended, replicas)))  # noqa: B023
    assert main(arguments(place, "out", 2)) == 3
    summary = json.loads((place / "out.summary").read_text())
    assert summary["resumed"] == kept[signal.SIGKILL][1]
    assert (place / "out").read_bytes() == (place / "whole").read_bytes()
    assert verify(place / "in.jsonl", place / "out").exit_code == 3
    told = read_report(place / "out")["replicas"]
    assert [one["replica"] for one in told] == [0, 1] and all(one["actual"]["lots"] for one in told)
    assert sum(one["actual"]["rows"] for one in told) >= N_ROWS + 2 and sum(one["planned"]["rows"] for one in told)


def test_what_cannot_be_said_is_refused_before_anything_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(place, "refused", 2), "--profile"]) == 2
    assert "--profile with data_parallel_size=2" in capsys.readouterr().err
    assert not list(place.glob("refused*"))


def test_the_plan_of_several_replicas(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed for the whole input, with the rows of each and the seconds of the longest."""
    plan = ["plan", str(place / "in.jsonl"), "--model", str(place / "tiny"), "--machine", "a100", "--json"]
    plan += ["--max-tokens", "10"]
    assert main(plan) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*plan, "--data-parallel-size", "4"]) == 0
    told = json.loads(capsys.readouterr().out)
    (decision,) = (d for d in told["decisions"] if d["name"] == "replicas")
    assert decision["value"] == 4 and "rows, by subtrees of the forest" in decision["reason"]
    assert told["rows"] == alone["rows"] and told["seconds"]["expected"] < alone["seconds"]["expected"]
    several = told["replicas"]
    assert [several["count"], sum(share["rows"] for share in several["shares"])] == [4, told["rows"] - 1]
    assert several["nodes"] == [] and several["unasked"] == "the plan is for a100, not for this machine"
    assert [price["replicas"] for price in several["prices"]] == [3, 4, 5]
    for price in several["prices"]:
        assert main([*plan, "--data-parallel-size", str(price["replicas"])]) == 0
        seconds = json.loads(capsys.readouterr().out)["total_seconds"]["expected"]
        assert price["seconds"] == pytest.approx(seconds)
        assert price["replica_seconds"] == pytest.approx(seconds * price["replicas"])


def test_the_plan_of_replicas_as_text_and_as_a_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All forms have the same figures; this machine is the one found."""
    plan = ["plan", str(place / "in.jsonl"), "--model", str(place / "tiny"), "--max-tokens", "10", "-dp", "2"]
    assert main([*plan, "--json"]) == 0
    several = json.loads(capsys.readouterr().out)["replicas"]
    (node,) = several["nodes"]
    assert main([*plan, "-v"]) == 0
    text = capsys.readouterr().out
    assert main(plan) == 0
    brief = capsys.readouterr().out
    assert main([*plan, "--html", str(place / "plan.html")]) == 0
    page = (place / "plan.html").read_text()
    for shown in (text, brief, page):
        assert f"1 found: {node['name']} ({node['processors']} processors" in shown
        assert "3: " in shown and "of all replicas together" in shown
    for number, share in enumerate(several["shares"]):
        assert f"  {number:<6}{share['rows']:>9,}{share['subtrees']:>9,}{share['tokens']:>12,}" in text
        assert f"<td>{share['tokens']:,}</td>" in page
    assert f"{several['recomputed_tokens']:,} prompt tokens" in text and "of all replicas' time is idle" in text
