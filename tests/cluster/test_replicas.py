"""Two replicas on one processor: the answers of one, also when a replica is killed; errors; nothing left running."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.fake_replica import FIRST, HUNG, MARK
from tests.house.source import ROOT
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cluster.executor import ExecutorCan
from umbel.cluster.heartbeats import Heartbeats
from umbel.cluster.local import LocalPool
from umbel.cluster.replicas import MOST_UNLOADED, Replicas
from umbel.errors import CapacityError, UmbelError, UsageError
from umbel.ir.params import SamplingParams

OPTIONS = {"dtype": "float32", "device": "cpu", "threads": 1, "chunk": 24}
PROMPTS = [[7, 8, 9] * 9 + [i % 5 + 10, i] for i in range(30)] + [[5], [200, 3, 77], [5]]
GREEDY = SamplingParams(temperature=0.0, max_tokens=14, ignore_eos=True, logprobs=2)
DRAWN = SamplingParams(temperature=0.7, n=2, max_tokens=9, ignore_eos=True, min_tokens=3, stop_token_ids=(4,))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("replicas") / "llama", "llama", seed=3)


@pytest.fixture(scope="module")
def two(tiny: Path) -> Iterator[Replicas]:
    with Replicas(str(tiny), data_parallel_size=2, **OPTIONS) as replicas:
        yield replicas
        replicas.generate([[5]])  # a test may have ended the processes
        running = dict(replicas.pool.processes)
    assert running and all(ended(pid) for pid in running.values())


@pytest.fixture(scope="module")
def one(tiny: Path) -> LLM:
    return LLM(str(tiny), **OPTIONS)


def ended(pid: int) -> bool:
    """Whether a process is gone (or only waits for its parent to take note)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_two_replicas_answer_as_one(one: LLM, two: Replicas, params: SamplingParams) -> None:
    """To the last bit of the log-probabilities, for every row its own draws; and the totals are theirs together."""
    began, before, planned = time.monotonic(), two.stats(), two.plan(PROMPTS, params)
    assert two.generate(PROMPTS, params) == one.generate(PROMPTS, params)
    after = two.stats()
    assert two.first_token is not None and two.first_token < time.monotonic()
    assert two.first_token > began or before.output_tokens  # that of the first run
    if any(one.doubled for one in two.replicas()):
        return  # one was held up by other work, so that the other ran its last rows too: more than was planned
    assert after.rows_done - before.rows_done == len(PROMPTS)
    outputs = params.n * (params.max_tokens or 0) * (len(PROMPTS) - (params is GREEDY))  # [5] is there twice
    assert 0 < after.output_tokens - before.output_tokens <= outputs
    computed = after.computed_prompt_tokens - before.computed_prompt_tokens
    assert computed == planned.estimates.computed_prompt_tokens > one.plan(PROMPTS, params).forest.n_tokens


def test_killed_replicas_lose_no_row(one: LLM, two: Replicas) -> None:
    """One replica dies while it has rows, then the other while it has none."""
    first = two.pool.processes
    found, stream = {}, two.stream(PROMPTS, DRAWN)
    for output in stream:
        if not found:
            os.kill(first[0], signal.SIGKILL)
        assert output.request_id not in found
        found[output.request_id] = output
    assert [found[str(i)] for i in range(len(PROMPTS))] == one.generate(PROMPTS, DRAWN)
    os.kill(two.pool.processes[1], signal.SIGKILL)
    assert two.generate(PROMPTS, GREEDY) == one.generate(PROMPTS, GREEDY)
    assert not set(first.values()) & set(two.pool.processes.values())


def test_the_last_rows_of_one_that_stands_still_are_run_by_the_other(one: LLM, two: Replicas) -> None:
    """It is stopped when it has answered a row, and goes on when all are answered; then it runs others as before."""
    prompts, stopped = [[7, 8, 9, *range(20 + i, 30 + i), i] for i in range(120)], list[int]()
    found = {}
    try:
        for output in two.stream(prompts, GREEDY, keys=range(120)):
            found[output.request_id] = output
            if not stopped and two.replicas()[1].rows > 0:
                stopped.append(two.pool.processes[1])
                os.kill(stopped[0], signal.SIGSTOP)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert stopped and [found[str(i)] for i in range(120)] == one.generate(prompts, GREEDY, keys=range(120))
    assert two.replicas()[0].doubled > 0 and two.pool.processes[1] == stopped[0]
    assert two.generate(PROMPTS, GREEDY) == one.generate(PROMPTS, GREEDY)


def test_abandoned_rows_end_their_processes(one: LLM, two: Replicas) -> None:
    running, stream = two.pool.processes, two.stream(PROMPTS, DRAWN)
    next(stream)
    stream.close()
    assert not two.pool.processes and all(ended(pid) for pid in running.values())


def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int = 2) -> Replicas:
    """Replicas without a model."""
    monkeypatch.setattr("umbel.cluster.local.PROGRAM", "tests.cluster.fake_replica")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    return Replicas(str(make_model(tmp_path / "llama", "llama")), data_parallel_size=count, **OPTIONS)


def test_a_row_that_kills_is_an_error_and_the_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = faked(tmp_path, monkeypatch)
    prompts = [[i + 20] for i in range(40)]
    prompts[11] = [3, 13]
    outputs = replicas.generate(prompts, SamplingParams(max_tokens=2))
    for i, output in enumerate(outputs):
        if i == 11:
            assert output.error is not None and output.error.code == "replica_died"
            assert "signal 9" in output.error.message and output.error.status == 500
        else:
            assert output.outputs[0].token_ids == (i, i + 20)
    assert replicas.stats().rows_done > 0 and replicas.first_token == 5.0
    assert replicas.stats().lost_processes >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("can", "most"), [(ExecutorCan(), 1), (ExecutorCan(elastic=True), MOST_UNLOADED + 1)])
def test_what_cannot_load_again_is_left_out_while_others_go_on(
    can: ExecutorCan, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once or, where machines come and go, after a few times; when the last one dies too, the run ends."""
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    replicas = faked(tmp_path, monkeypatch)
    replicas.pool.can = can
    outputs = replicas.generate([[15 + min(i, 1), i + 20] for i in range(40)])
    assert [output.outputs[0].token_ids[0] for output in outputs] == list(range(40))
    assert (tmp_path / "mark").read_text() in ["x" * times for times in range(most + 1)]
    monkeypatch.setattr("umbel.cluster.deal.MOST_DEATHS", 5)
    with pytest.raises(UmbelError, match=r"5 replicas were lost .* exit code 3; what is finished is kept"):
        replicas.generate([[13]])
    assert not replicas.pool.processes


class Told(Heartbeats):
    """Gives those up that say in a file that they hang; nothing depends on how fast this machine is."""

    file = Path("/nowhere")
    pool: LocalPool | None = None

    def lost(self) -> dict[int, str]:
        if self.pool is None or not self.file.exists():
            return {}
        pids = self.file.read_text().split()
        return {n: "gave no sign of life for 60 s" for n, pid in self.pool.processes.items() if str(pid) in pids}


@pytest.mark.parametrize("token", [201, 202], ids=["stopped", "asleep"])
def test_a_row_that_makes_replicas_hang_is_an_error_and_the_others_are_answered(
    token: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(HUNG, str(tmp_path / "hung"))
    monkeypatch.setattr("umbel.cluster.local.Heartbeats", Told)
    replicas = faked(tmp_path, monkeypatch)
    watch = replicas.pool._watch
    assert isinstance(watch, Told)
    watch.file, watch.pool = tmp_path / "hung", replicas.pool
    prompts = [[i + 20] for i in range(24)]
    prompts[11] = [3, token]
    outputs = replicas.generate(prompts, SamplingParams(max_tokens=2))
    for i, output in enumerate(outputs):
        if i == 11:
            assert output.error is not None and output.error.code == "replica_hung"
            assert "the last one gave no sign of life for 60 s and was ended" in output.error.message
        else:
            assert output.outputs[0].token_ids == (i, i + 20)
    assert "for 60 s and was ended: its rows go to those that are free" in caplog.text
    assert all(ended(int(pid)) for pid in (tmp_path / "hung").read_text().split())
    assert {seen.mark for seen in watch._seen.values()} <= {b"here", None}


def test_a_replica_that_does_not_read_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than a pipe takes is sent to one that is stopped, which is then given up by its silence."""
    ahead = [0.0]
    replicas = faked(tmp_path, monkeypatch, count=1)
    pool = replicas.pool
    pool._watch._clock = lambda: time.monotonic() + ahead[0]
    os.kill(pool.processes[0], signal.SIGSTOP)
    pool.submit(0, 7, b"x" * 2_000_000)
    results = pool.results()
    while select.select([pool._children[0].process.stdout], [], [], 0)[0]:  # what it had said before
        pool._events.extend(pool._read(0))
    ahead[0] = 61.0
    event = next(event for event in results if event.kind is None)  # behind what it had said before
    assert (event.kind, event.hung, event.data) == (None, True, b"gave no sign of life for 60 s and was ended")
    assert not pool.processes


def test_what_is_lost_is_not_started_or_given_rows_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are lost at a time: what is done about the first must not take the second for a new one."""
    pool = faked(tmp_path, monkeypatch).pool
    pool._events.clear()
    for number, pid in dict(pool.processes).items():
        os.kill(pid, signal.SIGKILL)
        pool._events.append(pool._lose(number, None))
    assert pool.start() == [] and pool.submit(1, 1, b"rows") is None
    told = pool.results()
    assert next(told).replica == 0 and pool.start() == [0]
    assert next(told).replica == 1 and pool.start() == [1]


def test_late_answers_are_refused_by_the_number_of_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = faked(tmp_path, monkeypatch)
    for prompts in ([[i + 20] for i in range(4)], [[203, i + 20] for i in range(4)]):
        outputs = replicas.generate(prompts, SamplingParams(max_tokens=2))
        assert [output.outputs[0].token_ids for output in outputs] == [(i, p[0]) for i, p in enumerate(prompts)]


def test_a_replica_that_dies_as_it_loads_leaves_the_work_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(FIRST, str(tmp_path / "first"))
    (tmp_path / "first").touch()
    replicas = faked(tmp_path, monkeypatch)
    assert len(replicas.pool.processes) == 1 and "ended with signal 9: while it loaded the model" in caplog.text
    outputs = replicas.generate([[i + 20] for i in range(8)], SamplingParams(max_tokens=2))
    assert [output.outputs[0].token_ids for output in outputs] == [(i, i + 20) for i in range(8)]
    replicas.stop()
    (tmp_path / "first").touch()
    with pytest.raises(UmbelError, match="replica 0 ended with signal 9 while it loaded the model"):
        faked(tmp_path, monkeypatch, count=1)


def test_a_planned_error_is_raised_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = faked(tmp_path, monkeypatch)
    with pytest.raises(CapacityError, match="too large"):
        replicas.generate([[1], [14]])
    assert not replicas.pool.processes


def test_what_does_not_go_together_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"one replica; use umbel\.cluster\.replicas\.Replicas"):
        LLM(str(tiny), data_parallel_size=2)
    with pytest.raises(UsageError, match=r"data_parallel_size=2 with tensor_parallel_size=2.*executor='ray'"):
        Replicas(str(tiny), data_parallel_size=2, tensor_parallel_size=2)
    with pytest.raises(UsageError, match="data_parallel_size=0: must be a whole number"):
        Replicas(str(tiny), data_parallel_size=0)
    with pytest.raises(UsageError, match="device='cuda:1': names one device"):
        Replicas(str(tiny), data_parallel_size=2, device="cuda:1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="data_parallel_size=2: 1 GPUs are on this machine"):
        Replicas(str(tiny), data_parallel_size=2, device="cuda")


def test_an_executor_that_is_not_installed_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "umbel.cluster.ray", raising=False)
    with pytest.raises(UsageError, match=r"the package 'ray' is not installed: pip install 'umbel\[ray\]'"):
        Replicas(str(tiny), executor="ray", **OPTIONS)
