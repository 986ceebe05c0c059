"""Replicas as actors of a Ray cluster of several nodes on this machine: one replica's answers, whatever is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import POISON, ActorWithPoison, Nodes, nodes
from tests.cluster.test_replicas import DRAWN, GREEDY, OPTIONS, PROMPTS
from tests.held import COMMITTED, PATIENCE, held, wait_until
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cli.main import main
from umbel.cluster.nodes import digest_of
from umbel.cluster.replicas import Replicas
from umbel.errors import UmbelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output

ask_nodes = pytest.importorskip("umbel.cluster.ray_nodes", reason="Ray is not installed here").ask_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),  # of Ray's own
]

KEYS = range(len(PROMPTS))  # the draws of each call are those of the first
CHANCE = random.Random(0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(1) as made:
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("ray") / "llama", "llama", seed=3)


@pytest.fixture(scope="module")
def one(tiny: Path) -> LLM:
    return LLM(str(tiny), **OPTIONS)


@pytest.fixture(scope="module")
def two(tiny: Path, cluster: Nodes) -> Iterator[Replicas]:
    """Two replicas, of which one waits for a node, which comes when the other is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umbel.cluster.ray.Actor", ActorWithPoison)
        with Replicas(str(tiny), data_parallel_size=2, executor="ray", **OPTIONS) as replicas:
            cluster.join()
            yield replicas


def answers(replicas: Replicas, params: SamplingParams, happen: Callable[[], object]) -> list[Output]:
    """All answers, each once; something happens when the first is there."""
    found: dict[str, Any] = {}
    for output in replicas.stream(PROMPTS, params, keys=KEYS):
        if not found:
            happen()
        assert output.request_id not in found
        found[output.request_id] = output
    return [found[str(i)] for i in range(len(PROMPTS))]


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_two_nodes_answer_as_one_process(one: LLM, two: Replicas, params: SamplingParams) -> None:
    """Also while the one that came later does not work yet."""
    wanted = one.generate(PROMPTS, params, keys=KEYS)

    def both_had_rows() -> bool:
        before = two.stats()
        assert two.generate(PROMPTS, params, keys=KEYS) == wanted
        after = two.stats()
        assert after.rows_done - before.rows_done == len(PROMPTS) and after.lost_processes == before.lost_processes
        return all(member.stats.rows_done for member in two.crew._members)

    wait_until(both_had_rows)


def test_each_node_says_what_it_has_before_anything_is_loaded(two: Replicas, tiny: Path) -> None:
    found = two.pool.nodes()
    assert found and {(node.processors, node.gpus, node.model) for node in found} == {(1, 0, digest_of(tiny))}
    assert {node.model for node in ask_nodes(str(tiny.parent / "elsewhere"), {"num_cpus": 1.0})} == {""}
    assert not ask_nodes(str(tiny), {"num_cpus": 2.0})


def test_a_killed_actor_and_a_lost_node_lose_no_row(one: LLM, two: Replicas, cluster: Nodes) -> None:
    wanted, lost = one.generate(PROMPTS, DRAWN, keys=KEYS), two.stats().lost_processes
    assert answers(two, DRAWN, lambda: cluster.kill(CHANCE)) == wanted
    cluster.join()
    assert answers(two, DRAWN, lambda: cluster.lose(CHANCE)) == wanted
    assert two.stats().lost_processes > lost
    assert two.generate(PROMPTS, GREEDY) == one.generate(PROMPTS, GREEDY, keys=KEYS)


@pytest.mark.nightly
def test_one_that_stands_still_holds_up_only_what_it_has(one: LLM, two: Replicas, cluster: Nodes) -> None:
    """It goes on when the other has nothing to do any more."""
    wait_until(lambda: bool(two.generate(PROMPTS, GREEDY)) and len(two.crew.ready) == 2)

    def stop() -> None:
        actor = cluster.actors()[0]
        os.kill(actor, signal.SIGSTOP)
        threading.Thread(target=go_on, args=(actor,)).start()

    def go_on(actor: int) -> None:
        wait_until(lambda: bool(two.crew.wanting))
        os.kill(actor, signal.SIGCONT)

    lost = two.stats().lost_processes
    assert answers(two, DRAWN, stop) == one.generate(PROMPTS, DRAWN, keys=KEYS)
    assert two.stats().lost_processes == lost


def test_a_row_that_ends_each_actor_it_meets_is_an_error(one: LLM, two: Replicas) -> None:
    lost = two.stats().lost_processes
    *others, poisoned = two.generate([*PROMPTS[:12], [5, POISON]], DRAWN, keys=range(13))
    assert others == one.generate(PROMPTS[:12], DRAWN, keys=range(12))
    assert poisoned.error is not None and poisoned.error.code == "replica_died"
    assert "the row was alone in it" in poisoned.error.message and two.stats().lost_processes >= lost + 2


def test_what_would_answer_otherwise_is_refused(two: Replicas, cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name of what differs, before it gets a row."""
    two.generate(PROMPTS, GREEDY)
    monkeypatch.setattr(two.crew, "_made", two.crew._made | {"model": "0123456789abcdef"})
    two.stop()
    with pytest.raises(UmbelError, match=r"replica \d on .* would answer with other bits: model \w+ instead of 0123"):
        two.generate(PROMPTS, GREEDY)


def test_what_cannot_be_is_refused_before_anything_is_loaded(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"ray_address='10.0.0.1:6379' with executor='local'"):
        Replicas(str(tiny), ray_address="10.0.0.1:6379")


def test_a_command_that_is_killed_goes_on(two: Replicas, cluster: Nodes, tmp_path: Path) -> None:
    """`umbel run` of a mixture of experts, with the bytes of one process that nothing happens to."""
    two.stop()
    make_model(tmp_path / "moe", "qwen3_moe", seed=3)
    rows = [{"prompt": f"{'Classify' if i % 3 else 'Read'} it: {i}", "max_tokens": 4 + i % 9} for i in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["run", str(tmp_path / "in.jsonl"), "--model", str(tmp_path / "moe"), "--dtype", "float32", "--threads"]
    command += ["1", "--temperature", "0.8", "--quiet", "--summary", str(tmp_path / "summary"), "-o"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    command += [str(tmp_path / "out"), "--data-parallel-size", "2", "--executor", "ray", "--ray-address"]
    with held(tmp_path / "mark", [*command, cluster.address]) as process:
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert main([*command, cluster.address]) == 0
    assert json.loads((tmp_path / "summary").read_text())["resumed"] == COMMITTED
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.nightly
def test_a_dataset_has_the_answers_of_the_command(tiny: Path, cluster: Nodes, tmp_path: Path) -> None:
    """Two thousand rows, groups kept whole by `repartition`; each group's beginning is computed once."""
    import ray.data

    from umbel.batch.call import run
    from umbel.ray import Stage

    cluster.join(cpus=3)  # Ray Data waits without end where its actors take all there is
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
