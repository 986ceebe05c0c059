"""Replicas as actors of a Ray cluster of several nodes on this machine: one replica's answers, whatever is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_replicas import DRAWN, GREEDY, OPTIONS, PROMPTS
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cluster.replicas import Replicas
from umbel.errors import UmbelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output

ray = pytest.importorskip("ray", reason="Ray is not installed here")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),  # of Ray's own
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and two nodes of one processor each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("ray") / "llama", "llama", seed=3)


@pytest.fixture(scope="module")
def one(tiny: Path) -> LLM:
    return LLM(str(tiny), **OPTIONS)


@pytest.fixture(scope="module")
def two(tiny: Path, cluster: Any) -> Iterator[Replicas]:
    with Replicas(str(tiny), data_parallel_size=2, executor="ray", **OPTIONS) as replicas:
        yield replicas


def answers(replicas: Replicas, params: SamplingParams, loss: Any = lambda: None) -> list[Output]:
    """All answers, each once; `loss` happens when the first is there."""
    found: dict[str, Any] = {}
    for output in replicas.stream(PROMPTS, params):
        if not found:
            loss()
        assert output.request_id not in found
        found[output.request_id] = output
    return [found[str(i)] for i in range(len(PROMPTS))]


def actors() -> list[int]:
    """Processes of Ray's actors on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Actor"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_two_nodes_answer_as_one_process(one: LLM, two: Replicas, params: SamplingParams) -> None:
    before = two.stats()
    assert two.generate(PROMPTS, params) == one.generate(PROMPTS, params)
    after = two.stats()
    assert after.rows_done - before.rows_done == len(PROMPTS) and after.lost_processes == 0


def test_a_killed_actor_and_a_lost_node_lose_no_row(one: LLM, two: Replicas, cluster: Any) -> None:
    def kill() -> None:
        os.kill(actors()[0], signal.SIGKILL)

    assert answers(two, DRAWN, kill) == one.generate(PROMPTS, DRAWN)
    node = cluster.add_node(num_cpus=1)
    others = [other for other in cluster.worker_nodes if other is not node]
    found = answers(two, DRAWN, lambda: cluster.remove_node(others[0], allow_graceful=False))
    assert found == one.generate(PROMPTS, DRAWN)
    assert two.stats().lost_processes >= 1
    assert two.generate(PROMPTS, GREEDY) == one.generate(PROMPTS, GREEDY)


def test_what_would_answer_otherwise_is_refused(two: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name of what differs, before it gets a row."""
    monkeypatch.setattr(two, "_made", two._made | {"model": "0123456789abcdef"})
    two.stop(patience=0.0)
    with pytest.raises(UmbelError, match=r"replica \d on .* would answer with other bits: model \w+ instead of 0123"):
        two.generate(PROMPTS, GREEDY)
    monkeypatch.undo()
    assert len(two.generate(PROMPTS, GREEDY)) == len(PROMPTS)


def test_what_cannot_be_is_refused_before_anything_is_loaded(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"ray_address='10.0.0.1:6379' with executor='local'"):
        Replicas(str(tiny), ray_address="10.0.0.1:6379")


@pytest.mark.nightly
def test_a_dataset_has_the_answers_of_the_command(tiny: Path, cluster: Any, tmp_path: Path) -> None:
    """Two thousand rows, groups kept whole by `repartition`; each group's beginning is computed once."""
    import ray.data

    from umbel.batch.call import run
    from umbel.ray import Stage

    cluster.add_node(num_cpus=3)  # Ray Data waits without end where its actors take all there is
    rows = [{"key": i, "group": i % 20, "prompt": f"group {i % 20}: the same words for all, {i}"} for i in range(2000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    params = {"temperature": 0.8, "max_tokens": 4}
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model=str(tiny), dtype="float32", device="cpu", **params)
    wanted = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    data = ray.data.from_items(rows).repartition(4, keys=["group"])
    options = {"params": params, "dtype": "float32", "device": "cpu", "threads": 1}
    asked = {"fn_constructor_args": [str(tiny)], "fn_constructor_kwargs": options, "batch_size": None}
    found = data.map_batches(Stage, **asked, concurrency=2, num_cpus=1).take_all()
    texts = {row["key"]: row["text"] for row in found}
    assert len(found) == 2000 and [texts[i] for i in range(2000)] == wanted
