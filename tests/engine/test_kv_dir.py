"""KV of prompts that one job keeps in a folder and the next one reads: the same answers, and nothing computed twice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.test_gpu_path import on_gpu_kernels
from tests.plan.workloads import MACHINE, SPEC
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.batch.planning import Planning, target_at
from umbel.cluster.replicas import Replicas
from umbel.config import EngineConfig
from umbel.cost.known import Known
from umbel.engine.shelving import StoredBlocks, open_shelf
from umbel.errors import UsageError
from umbel.ir.kv_blocks import BLOCK, StoredKV, names_of
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.ir.workload import Workload
from umbel.kv import shelf as shelves
from umbel.kv.shelf import Shelf
from umbel.models.families import read_spec
from umbel.plan.explain.brief import brief_lines
from umbel.plan.explain.record import to_json
from umbel.plan.planner import make_plan

RNG = np.random.default_rng(3)
LONG = RNG.integers(3, 290, 600).tolist()
PROMPTS = [LONG[:300] + RNG.integers(3, 290, 150).tolist() for _ in range(4)]
DRAWN = SamplingParams(temperature=0.8, seed=7, max_tokens=5, ignore_eos=True, n=2)
DISTINCT = 300 + 4 * 150
BEHIND = 4 * (450 - 3 * BLOCK)  # tokens behind the last whole block of each row
FILES = 2 + 4  # two blocks that all have, and a third of each row, whose beginning they share
Answers = list[list[tuple[int, ...]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("kept") / "tiny", "qwen3", seed=1, max_position_embeddings=1024)


@pytest.fixture(autouse=True)
def slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is faster than any model but these."""
    monkeypatch.setattr("umbel.engine.local.seconds_of_block", lambda price: 1.0)


def run(model: Path, prompts: list[list[int]] = PROMPTS, params: Any = DRAWN, **options: Any) -> tuple[Answers, Stats]:
    """Answers, and what they took."""
    given: dict[str, Any] = {"dtype": "float32", "device": "cpu", "threads": 1, **options}
    with LLM(str(model), **given) as llm:
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return [[one.token_ids for one in output.outputs] for output in outputs], llm.stats()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk": 50, "page_size": 32},
        {"kv_tokens": 800, "chunk": 64},
        {"dtype": "bfloat16"},
        {"kv_cache_dtype": "int8", "allow_lossy": True},
        {"prefix": "none"},
        {"attention_backend": "torch"},
    ],
    ids=["plain", "chunks", "tight pool", "bfloat16", "int8", "nothing shared", "torch"],
)
def test_the_second_job_reads_what_the_first_computed(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    plain, _ = run(model, **options)
    first, computed = run(model, kv_dir=str(tmp_path), **options)
    second, read = run(model, kv_dir=str(tmp_path), **options)
    assert plain == first == second
    if options.get("prefix") != "none" and "kv_tokens" not in options:
        assert (computed.computed_prompt_tokens, computed.read_prompt_tokens) == (DISTINCT, 0)
        assert (read.computed_prompt_tokens, read.read_prompt_tokens) == (BEHIND, DISTINCT - BEHIND)
    assert read.read_prompt_tokens >= 2 * BLOCK


def test_a_plan_says_what_is_read_and_what_that_saves(model: Path, tmp_path: Path) -> None:
    """By an engine that is loaded, and by the files alone; then the run reads as much."""
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "threads": 1, "kv_dir": str(tmp_path)}
    load, found = Workload.of(PROMPTS, DRAWN), list[tuple[object, ...]]()
    for _ in range(2):
        by_files = Planning(load, read_spec(model), model).plan(target_at(EngineConfig(str(model), **options), "this"))
        with LLM(str(model), **options) as llm:
            decision = llm.plan_for(load).decision("kv folder")
            assert by_files.decision("kv folder").facts["read"] == decision.facts["read"]
            llm.generate(PROMPTS, DRAWN, use_tqdm=False)
            found.append((decision.facts["read"], llm.stats().read_prompt_tokens, decision.reason))
    assert [line[:2] for line in found] == [(0, 0), (DISTINCT - BEHIND, DISTINCT - BEHIND)]
    assert "no block of 128 tokens" in str(found[0][2]) and "if the disk reads 1 GB/s" in str(found[1][2])
    with LLM(str(model), **options) as llm:
        llm.generate(PROMPTS, DRAWN, use_tqdm=False)
        assert "as earlier jobs read" in llm.plan_for(load).decision("kv folder").reason
    (folder,) = tmp_path.iterdir()
    assert shelves.read_seconds(folder) and "kv folder" in "".join(brief_lines(to_json(by_files)))
    (folder / shelves.READS).write_text("{}")
    assert shelves.read_seconds(folder) is None and len(Shelf(folder, 2**30)) == FILES


@pytest.mark.parametrize(("disk", "quicker"), [(1e-3, False), (1e12, True)])
def test_a_plan_says_when_computing_is_quicker(monkeypatch: pytest.MonkeyPatch, disk: float, quicker: bool) -> None:
    monkeypatch.setattr("umbel.plan.passes.stored.DISK", disk)
    config, load = EngineConfig("tiny", kv_dir="x"), Workload.of([[*range(300)]] * 2, DRAWN)
    known = Known(stored=StoredKV(frozenset(names_of(np.arange(300, dtype=np.int32), BLOCK))))
    decision = make_plan(load, SPEC, config, MACHINE, known=known).decision("kv folder")
    assert decision.facts["read"] == 256 and (float(str(decision.facts["saved"])) > 0) == quicker
    assert ("which is quicker" in decision.reason) != quicker


def test_runs_that_fork_elsewhere_find_their_beginnings(model: Path, tmp_path: Path) -> None:
    """Blocks do not depend on the forest of the job that kept them."""
    run(model, kv_dir=str(tmp_path))
    others = [LONG[:200] + [5] * 30, LONG[:200] + [6] * 30, LONG[:270]]
    plain, _ = run(model, others)
    answers, stats = run(model, others, kv_dir=str(tmp_path))
    assert answers == plain
    behind = 2 * BLOCK - 200  # of the second block, whose beginning is computed for the first row, which ends elsewhere
    assert stats.read_prompt_tokens == BLOCK + behind, "the first block of all, and the second of the last row alone"


def test_what_a_step_computes_already_is_not_read(model: Path, tmp_path: Path) -> None:
    """A row that is too short for a block computes the beginning of all; others read what comes behind it."""
    run(model, kv_dir=str(tmp_path))
    prompts = [LONG[:90], LONG[:300]]
    plain, _ = run(model, prompts)
    answers, stats = run(model, prompts, kv_dir=str(tmp_path))
    assert answers == plain
    assert (stats.computed_prompt_tokens, stats.read_prompt_tokens) in ((134, 166), (44, 256)), "in either order"


def test_later_calls_read_what_earlier_ones_computed(model: Path, tmp_path: Path) -> None:
    """The pool is given up between calls; blocks are not, and need not be written yet."""
    starts = [LONG[:280], LONG[300:580]]
    with LLM(str(model), dtype="float32", device="cpu", threads=1, kv_dir=str(tmp_path)) as llm:
        found = [llm.generate([[*starts[i % 2], 7 + i]], DRAWN, use_tqdm=False)[0] for i in range(4)]
        assert llm.stats().computed_prompt_tokens == 2 * 281 + 2 * (281 - 2 * BLOCK)
    plain = [run(model, [[*starts[i % 2], 7 + i]])[0][0] for i in range(4)]
    assert [[one.token_ids for one in output.outputs] for output in found] == plain


def test_kernels_of_gpus_read_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_model(tmp_path / "tiny")
    made = on_gpu_kernels(monkeypatch)
    monkeypatch.setattr(StoredBlocks, "size", 8)
    prompts = [[*LONG[:10], 9], [*LONG[:10], 8]]
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    plain, _ = run(tiny, prompts, params)
    assert run(tiny, prompts, params, kv_dir=str(tmp_path / "kv"))[0] == plain
    answers, stats = run(tiny, prompts, params, kv_dir=str(tmp_path / "kv"))
    assert answers == plain and stats.read_prompt_tokens == 8 and made


def test_scores_of_prompts_are_all_there(model: Path, tmp_path: Path) -> None:
    """Runs whose log-probabilities are wanted are computed, as keys and values do not say them."""
    wanted = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1)
    run(model, kv_dir=str(tmp_path))

    def scores(**options: Any) -> list[Any]:
        with LLM(str(model), dtype="float32", device="cpu", threads=1, **options) as llm:
            return [output.prompt_logprobs for output in llm.generate(PROMPTS, wanted, use_tqdm=False)]

    assert scores(kv_dir=str(tmp_path)) == scores()


def changed(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (changed, "its bytes are not those that were written"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "left out, as it cannot be used"),
        (lambda path: path.write_bytes(b""), "left out, as it cannot be used"),
        (Path.unlink, None),
    ],
    ids=["a bit", "cut off", "empty", "gone"],
)
def test_damaged_blocks_are_computed(
    model: Path, tmp_path: Path, harm: Callable[[Path], Any], says: str | None
) -> None:
    plain, _ = run(model, kv_dir=str(tmp_path))
    assert len(list(tmp_path.glob(f"*/*{shelves.SUFFIX}"))) == FILES
    (first,) = names_of(np.array(LONG[:BLOCK], np.int32), BLOCK)
    (file,) = tmp_path.glob(f"*/{first}{shelves.SUFFIX}")
    harm(file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers, stats = run(model, kv_dir=str(tmp_path))
    assert answers == plain
    assert stats.read_prompt_tokens == 3 * (3 * BLOCK - 300), "by three rows, behind what the first one computes"
    assert any(says in str(one.message) for one in caught) if says else not caught
    assert run(model, kv_dir=str(tmp_path))[1].computed_prompt_tokens == BEHIND, "it is kept again"


def test_blocks_of_other_tokens_are_not_taken(model: Path, tmp_path: Path) -> None:
    """Whatever a file is called, its tokens are compared."""
    plain, _ = run(model, [LONG[:129]], kv_dir=str(tmp_path))
    (file,) = tmp_path.glob(f"*/*{shelves.SUFFIX}")
    run(model, [LONG[200:329]], kv_dir=str(tmp_path))
    (other,) = set(tmp_path.glob(f"*/*{shelves.SUFFIX}")) - {file}
    file.write_bytes(other.read_bytes())
    with pytest.warns(UserWarning, match="it is of other tokens"):
        assert run(model, [LONG[:129]], kv_dir=str(tmp_path))[0] == plain


def test_another_model_or_dtype_has_its_own(model: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", "qwen3", seed=2, max_position_embeddings=1024)
    for where, options in ((model, {}), (other, {}), (model, {"dtype": "bfloat16"}), (model, {"seed": 5})):
        _, stats = run(where, kv_dir=str(tmp_path / "kv"), **options)
        assert bool(stats.read_prompt_tokens) == (options == {"seed": 5}), "draws do not change what prompts are"
    assert len(list((tmp_path / "kv").iterdir())) == 3


def test_rows_with_adapters_keep_nothing_there(model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lora": {"one": "eggroll:seed=7,member=0,sigma=0.01"}, "kv_dir": str(tmp_path)}
    for _ in range(2):
        with LLM(str(model), dtype="float32", device="cpu", threads=1, **options) as llm:
            llm.generate(PROMPTS, DRAWN, lora_request="one", use_tqdm=False)
            assert llm.stats().read_prompt_tokens == 0
    assert not list(tmp_path.glob(f"*/*{shelves.SUFFIX}"))


def block_of(value: int) -> dict[str, torch.Tensor]:
    return {"keys.0": torch.full((1, BLOCK, 8), value, dtype=torch.float32)}


TOKENS = np.arange(BLOCK, dtype=np.int32)
BYTES = block_of(0)["keys.0"].nbytes


def test_a_full_folder_keeps_what_is_wanted_most(tmp_path: Path) -> None:
    earlier = Shelf(tmp_path, 10 * BYTES)
    for i in range(2):
        earlier.write(f"old{i}", TOKENS, block_of(i))
    earlier.close()
    room = 3 * max(path.stat().st_size for path in tmp_path.iterdir())
    now = Shelf(tmp_path, room)
    now.write("a", TOKENS, block_of(5))
    now.want("a")
    now.write("b", TOKENS, block_of(6))
    assert "old0" not in now and "old1" in now, "the older one of an earlier job made room"
    now.write("c", TOKENS, block_of(7))
    assert {"a", "b", "c"} == {name for name in ("old0", "old1", "a", "b", "c") if name in now}
    now.write("d", TOKENS, block_of(8))
    assert "d" not in now, "what comes is wanted no more than what it would push out"
    now.close()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "b", "c"]
    found = Shelf(tmp_path, room).read("b", TOKENS)
    assert found is not None and torch.equal(found["keys.0"], block_of(6)["keys.0"])


def test_what_a_killed_job_was_writing_is_swept_away(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.1", tmp_path / ".b.2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert len(Shelf(tmp_path, BYTES)) == 0
    assert not old.exists() and new.exists(), "another job may be writing it"


def test_a_disk_that_is_full_is_said_once_and_harms_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = run(model)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelves, "save_file", full)
    with pytest.warns(UserWarning, match="nothing more is kept there .*No space left on device") as caught:
        assert run(model, kv_dir=str(tmp_path))[0] == plain
    assert len([one for one in caught if "kv_dir" in str(one.message)]) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left half written"


def test_reading_stops_where_computing_is_faster(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [RNG.integers(3, 290, 2 * BLOCK).tolist() for _ in range(6)]
    plain, _ = run(model, many, kv_dir=str(tmp_path))
    monkeypatch.setattr("umbel.engine.local.seconds_of_block", lambda price: 0.0)
    answers, stats = run(model, many, kv_dir=str(tmp_path))
    assert answers == plain and stats.read_prompt_tokens == 4 * BLOCK


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tensor_parallel_size": 2}, "each rank has a part of the KV"),
        ({"technique": ("pages:budget=0.5",), "allow_lossy": True}, "not in a block"),
        ({"kv_dir_gib": 0.0}, "must be above 0"),
        ({"kv_dir_gib": float("nan")}, "must be above 0"),
    ],
    ids=["ranks", "technique", "no room", "not a number"],
)
def test_what_cannot_be_kept_there_is_refused(model: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        LLM(str(model), device="cpu", kv_dir=str(tmp_path / "kv"), **options)
    assert not (tmp_path / "kv").exists()


def test_states_and_places_that_are_no_folder_are_refused(model: Path, tmp_path: Path) -> None:
    spec: Any = SimpleNamespace(recurrences=(1,), family="bamba")
    with pytest.raises(UsageError, match="their layers have states"):
        open_shelf(EngineConfig.of(str(model), kv_dir=str(tmp_path)), spec, model)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="name a folder that can be made"):
        LLM(str(model), device="cpu", kv_dir=str(tmp_path / "file"))


@pytest.mark.slow
@pytest.mark.nightly
def test_replicas_share_a_folder(model: Path, tmp_path: Path) -> None:
    plain, _ = run(model)
    for _ in range(2):
        options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "threads": 1, "kv_dir": str(tmp_path)}
        with Replicas(str(model), data_parallel_size=2, **options) as replicas:
            outputs = replicas.generate(PROMPTS, DRAWN, use_tqdm=False)
            stats = replicas.stats()
        assert [[one.token_ids for one in output.outputs] for output in outputs] == plain
    assert stats.read_prompt_tokens >= 2 * BLOCK
