"""What can be known before a model is loaded: a machine without it, with another, with too little memory; a cluster
that is not there or of other versions. Each is an error that says what to do."""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_model
from umbel.cluster.gpu_memory import free_gpu_memory
from umbel.cluster.nodes import FoundNode, Needs, check_nodes, digest_of, node_here
from umbel.config import EngineConfig
from umbel.errors import UsageError

GIB = 2**30
HERE = version("umbel")
NEEDS = Needs(2, "/models/a", "aaaa", 4 * GIB)


def node(name: str, memory: int = 9 * GIB, model: str = "aaaa", umbel: str = HERE, fault: str = "") -> FoundNode:
    return FoundNode(name, 8, 0, memory, model, umbel, fault)


def test_machines_that_can_are_taken() -> None:
    check_nodes([], NEEDS)
    check_nodes([node("a"), node("b")], NEEDS)
    check_nodes([node("a", umbel="0.0.1")], Needs(2, "/models/a", "aaaa", GIB, mixed=True))
    check_nodes([node("a", model="")], Needs(1, "org/name", "", GIB))  # each machine fetches it


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (node("b", model=""), "b has no such model: copy it there"),
        (node("b", model="bbbb"), r"b has another model of that name \(bbbb instead of aaaa\): copy this one there"),
        (node("b", umbel="0.0.1"), f"b has Umbel 0.0.1 instead of {HERE}: install .* --mixed-replicas --allow-lossy"),
        (node("b", memory=3 * GIB), "b has 3 GiB of memory free, and the weights take 4 GiB: take a smaller dtype"),
        (node("b", fault="cannot run Umbel"), "b cannot run Umbel"),
    ],
    ids=["absent", "other", "version", "memory", "fault"],
)
def test_what_a_machine_lacks_is_said_with_what_to_do(wrong: FoundNode, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_nodes([node("a"), wrong], NEEDS)


def test_more_replicas_than_the_memory_of_all_takes() -> None:
    nodes = [node("a"), node("b", memory=5 * GIB)]
    check_nodes(nodes, Needs(3, "/models/a", "aaaa", 4 * GIB))
    with pytest.raises(UsageError, match=r"data_parallel_size=4: .* 2 machines takes 3 of them: lower it to that"):
        check_nodes(nodes, Needs(4, "/models/a", "aaaa", 4 * GIB))


def test_gpus_have_to_take_the_weights_of_their_share() -> None:
    def with_gpus(name: str, *free: int) -> FoundNode:
        return replace(node(name, memory=GIB), gpus=len(free), gpu_bytes=tuple(one * GIB for one in free))

    needs = Needs(2, "/models/a", "aaaa", 4 * GIB, n_gpus=2)
    check_nodes([with_gpus("a", 5, 4, 3), with_gpus("b", 4, 4)], needs)
    check_nodes([replace(node("a", memory=GIB), gpus=4)], needs)  # no driver says what is free
    with pytest.raises(UsageError, match=r"b has GPUs with 3 GiB, 5 GiB free, .* 4 GiB on each of 2 GPUs: take a"):
        check_nodes([with_gpus("a", 5, 4, 9, 9), with_gpus("b", 3, 5)], needs)
    with pytest.raises(UsageError, match=r"data_parallel_size=2: .* each take 4 GiB on each .* takes 1 of them"):
        check_nodes([with_gpus("a", 5, 4, 3)], needs)


@pytest.mark.parametrize(
    ("said", "found"), [("81000\n\n40500\n", (81_000, 40_500)), ("[N/A]\n", ()), ("exit 9", ()), (None, ())]
)
def test_a_driver_says_what_its_gpus_have_free(
    said: str | None, found: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said is not None:
        command = tmp_path / "nvidia-smi"
        command.write_text(f"#!/bin/sh\n{said if 'exit' in said else f'printf {shlex.quote(said)}'}\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if said is not None else str(tmp_path))
    assert free_gpu_memory() == tuple(mib * 2**20 for mib in found)


def test_a_machine_says_what_it_has(tmp_path: Path) -> None:
    model = make_model(tmp_path / "llama", "llama")
    told = node_here(str(model), 4, 1)
    assert (told.processors, told.gpus, told.model, told.umbel) == (4, 1, digest_of(model), HERE)
    assert told.memory_bytes > 0
    assert node_here(str(tmp_path / "elsewhere"), 4, 0).model == node_here("org/of-the-hub", 4, 0).model == ""
    weights = next(model.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    assert node_here(str(model), 4, 1).model not in ("", told.model)


def test_mixed_replicas_are_asked_for_by_name() -> None:
    with pytest.raises(UsageError, match=r"mixed_replicas=True may change answers: allow_lossy"):
        EngineConfig("demo", executor="ray", mixed_replicas=True)
    with pytest.raises(UsageError, match="mixed_replicas=True with executor='local'"):
        EngineConfig("demo", mixed_replicas=True, allow_lossy=True)
    mixed = EngineConfig("demo", executor="ray", mixed_replicas=True, allow_lossy=True)
    plain = EngineConfig("demo", executor="ray", allow_lossy=True)
    assert mixed.identity != plain.identity and mixed.lossy == ("mixed_replicas=True",)


def test_ray_that_is_not_installed_is_named_in_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from umbel.batch.plan_replicas import find_nodes

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "umbel.cluster.ray_nodes", raising=False)
    nodes, unasked = find_nodes(EngineConfig("demo", executor="ray"), "this")
    assert nodes == () and unasked == "the package 'ray' is not installed here: pip install 'umbel[ray]'"


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    ray_nodes = pytest.importorskip("umbel.cluster.ray_nodes", reason="Ray is not installed here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UsageError, match=rf"ray_address='{address}': .* nothing listens there .*ray start --head"):
            ray_nodes.join(address)


def test_a_cluster_of_other_versions_is_named_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of Ray itself, which its own check makes here."""
    ray_nodes = pytest.importorskip("umbel.cluster.ray_nodes", reason="Ray is not installed here")
    from ray._private.utils import check_version_info

    def init(**asked: Any) -> None:
        check_version_info({"ray_version": "2.61.0", "python_version": "3.9.1"}, "10.0.0.9")

    monkeypatch.setattr(ray_nodes.ray, "init", init)
    here = rf"this machine Ray {version('ray')}, Python {sys.version.split()[0]}"
    with pytest.raises(UsageError, match=rf"that cluster has Ray 2.61.0, Python 3.9.1, and {here}: install the same"):
        ray_nodes.join("auto")


class FakeRay:
    """The part of Ray that asks machines: `nodes` as it lists them, and what each of them answers, by its id."""

    def __init__(self, resources: Mapping[str, Mapping[str, float]], answers: Mapping[str, object]):
        self.resources, self.answers, self.asked = resources, answers, list[str]()

    def nodes(self) -> list[dict[str, Any]]:
        alive = {"Alive": True, "NodeManagerAddress": "10.0.0.1"}
        return [{**alive, "NodeID": n, "NodeManagerHostname": n, "Resources": r} for n, r in self.resources.items()]

    def remote(self, act: object) -> FakeRay:
        return self

    def options(self, scheduling_strategy: Any, **others: object) -> Any:
        return type("Asked", (), {"remote": lambda one, *given: self._ask(scheduling_strategy.node_id)})()

    def _ask(self, node: str) -> str:
        self.asked.append(node)
        return node

    def wait(self, tasks: list[str], **others: object) -> None: ...

    def get(self, task: str, timeout: float) -> object:
        answer = self.answers[task]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_machines_are_asked_that_can_take_a_replica(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ray_nodes = pytest.importorskip("umbel.cluster.ray_nodes", reason="Ray is not installed here")
    from ray.exceptions import RayTaskError, WorkerCrashedError

    missing = RayTaskError("node_here", "...\nModuleNotFoundError: No module named 'umbel'", ValueError())
    resources = {"head": {}, "b" * 56: {"CPU": 8.0}, "c" * 56: {"CPU": 8.0}, "d" * 56: {"CPU": 8.0}}
    answers = {"b" * 56: node("says"), "c" * 56: missing, "d" * 56: WorkerCrashedError()}
    fake = FakeRay(resources, answers)
    monkeypatch.setattr(ray_nodes, "ray", fake)
    found = ray_nodes.ask_nodes("/models/a", {"num_cpus": 0.9})
    assert "head" not in fake.asked and len(fake.asked) == 3
    assert [one.model for one in found] == ["aaaa", ""]
    assert found[0].name == f"{'b' * 56} (10.0.0.1)"
    assert "No module named 'umbel'" in found[1].fault and f"install umbel[ray]=={HERE} there" in found[1].fault
    assert "was not asked: WorkerCrashedError" in caplog.text
