"""What happens to clusters in hours, in minutes: actors, nodes and drivers killed, slow ones, new ones; every row once,
with the bytes of one process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tools.kill_test import make_input

from tests.cluster.nodes import Nodes, nodes
from tests.held import COMMITTED, HELD, PATIENCE, held
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cli.main import main
from umbel.cluster.replicas import Replicas
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),  # of Ray's own
]

OPTIONS = {"dtype": "float32", "device": "cpu", "threads": 1}
PROMPTS = [[7, 8, 9] * 9 + [i % 5 + 10] * (i % 3) + [20 + i % 200, i // 200] for i in range(1000)]
KEYS = range(len(PROMPTS))  # the draws of each call are those of the first
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
DRAWN = SamplingParams(temperature=0.8, max_tokens=24, n=2)


CASES = {
    "two nodes, dense, drawn": (2, "demo", DRAWN),
    "two nodes, experts, greedy": (2, "qwen3_moe", GREEDY),
    "three nodes, dense, greedy": (3, "demo", GREEDY),
    "three nodes, experts, drawn": (3, "qwen3_moe", DRAWN),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[int, str, SamplingParams]:
    found: tuple[int, str, SamplingParams] = request.param
    return found


@pytest.fixture(scope="module")
def cluster(case: tuple[int, str, SamplingParams]) -> Iterator[Nodes]:
    with nodes(case[0]) as made:
        yield made


@pytest.fixture(scope="module")
def model(case: tuple[int, str, SamplingParams], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model, or a mixture of experts."""
    if case[1] == "demo":
        return "demo"
    place = tmp_path_factory.mktemp("losses") / "moe"
    return str(make_model(place, case[1], seed=3, hidden_size=256, num_hidden_layers=6))


@pytest.fixture(scope="module")
def params(case: tuple[int, str, SamplingParams]) -> SamplingParams:
    return case[2]


@pytest.fixture(scope="module")
def wanted(model: str, params: SamplingParams) -> list[Output]:
    return LLM(model, **OPTIONS).generate(PROMPTS, params, keys=KEYS, use_tqdm=False)


@pytest.fixture(scope="module")
def replicas(model: str, cluster: Nodes) -> Iterator[Replicas]:
    with Replicas(model, data_parallel_size=cluster.count, executor="ray", **OPTIONS) as made:
        yield made


def answers(replicas: Replicas, params: SamplingParams, happen: Callable[[int], None]) -> list[Output]:
    """All answers, each once; `happen` gets how many there are, after each."""
    found: dict[str, Any] = {}
    for output in replicas.stream(PROMPTS, params, keys=KEYS):
        assert output.request_id not in found
        found[output.request_id] = output
        happen(len(found))
    return [found[str(i)] for i in range(len(PROMPTS))]


def wait_for_all(replicas: Replicas) -> None:
    """Until all are loaded: one that was started on a node which is lost meanwhile is one more loss, told later."""
    while len(replicas.crew.ready) < replicas.config.data_parallel_size:
        replicas.generate(PROMPTS[:8], SamplingParams(max_tokens=2), use_tqdm=False)


@pytest.mark.parametrize(("what", "times"), [("actor", 5), ("node", 3)])
def test_killed(
    what: str, times: int, replicas: Replicas, cluster: Nodes, params: SamplingParams, wanted: list[Output], seed: int
) -> None:
    """At random moments, whatever the others are doing: they work, load or wait for a place."""
    chance, left, lost = random.Random(seed), times, replicas.stats().lost_processes
    moments: list[int] = []

    def happen(count: int) -> None:
        nonlocal left
        if moments and count >= moments[0]:
            moments.pop(0)
            left -= 1
            if what == "actor":
                cluster.kill(chance)
            else:
                cluster.lose(chance)
                cluster.join()

    while left:
        moments[:] = sorted(chance.sample(range(1, len(PROMPTS) * 3 // 4), min(left, 2)))
        assert answers(replicas, params, happen) == wanted
    assert replicas.stats().lost_processes > lost


def test_one_that_stands_still_loses_its_work_to_the_others(
    replicas: Replicas, cluster: Nodes, params: SamplingParams, wanted: list[Output]
) -> None:
    """An actor is stopped when it has rows, and goes on when nothing comes from the others any more."""
    stopped: list[int] = []
    last = [time.monotonic()]

    def happen(count: int) -> None:
        last[0] = time.monotonic()
        if not stopped and count > len(PROMPTS) // 10:
            stopped.append(cluster.actors()[0])
            os.kill(stopped[0], signal.SIGSTOP)
            threading.Thread(target=go_on).start()

    def go_on() -> None:
        while time.monotonic() - last[0] < 5.0:
            time.sleep(0.1)
        os.kill(stopped[0], signal.SIGCONT)

    wait_for_all(replicas)
    before = replicas.stats().lost_processes
    assert answers(replicas, params, happen) == wanted
    assert stopped and replicas.stats().lost_processes == before


def test_a_node_that_joins_is_used(
    replicas: Replicas, model: str, cluster: Nodes, params: SamplingParams, wanted: list[Output]
) -> None:
    """While rows run: one more replica was asked for than there is room for."""
    replicas.stop()
    with Replicas(model, data_parallel_size=cluster.count + 1, executor="ray", **OPTIONS) as more:
        joined: list[int] = []

        def happen(count: int) -> None:
            if not joined:
                joined.append(count)
                cluster.join()

        assert answers(more, params, happen) == wanted
        while not all(one.stats.rows_done for one in more.crew._members):
            assert answers(more, params, happen) == wanted
        assert more.stats().lost_processes == 0
    cluster.lose(random.Random(0))


def test_the_driver_killed_and_begun_again(
    replicas: Replicas, cluster: Nodes, model: str, params: SamplingParams, tmp_path: Path, seed: int
) -> None:
    """`umbel run`, killed at a random moment of its beginning, twice in the middle, and drained: what is finished is
    kept, and the bytes are the same."""
    replicas.stop()
    make_input(tmp_path / "in.jsonl", 600, 1, 0)
    given = ["run", str(tmp_path / "in.jsonl"), "--model", model, "--dtype", "float32", "--threads", "1"]
    given += ["--temperature", str(params.temperature), "--seed", "7", "--quiet"]
    began = time.monotonic()
    assert main([*given, "-o", str(tmp_path / "whole.jsonl")]) == 0
    chance, seconds, codes = random.Random(seed), time.monotonic() - began, list[int]()
    many = ["--executor", "ray", "--ray-address", cluster.address, "--data-parallel-size", str(cluster.count)]
    command = [*given, "-o", str(tmp_path / "out.jsonl"), *many, "--summary", str(tmp_path / "summary")]
    process = subprocess.Popen([sys.executable, "-m", "umbel.cli.main", *command])
    with suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.0, seconds))
    process.kill()
    process.wait()
    for number, code in ((signal.SIGKILL, -9), (signal.SIGKILL, -9), (signal.SIGTERM, 75)):
        with held(tmp_path / f"{len(codes)}.held", command) as process:
            process.send_signal(number)
            codes.append(process.wait(PATIENCE))
            assert codes[-1] == code
    assert main(command) == 0
    summary = json.loads((tmp_path / "summary").read_text())
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert summary["resumed"] >= 2 * COMMITTED + HELD
