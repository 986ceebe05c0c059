"""A model that is cut over two processes: the tokens of one, errors instead of waiting, and no process left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from tests.cluster.test_replicas import ended
from tests.drafters import check_all
from tests.held import wait_until
from tests.house.source import ROOT
from tests.parameters import by_night
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import UmbelError, UsageError
from umbel.ir.params import SamplingParams

PROMPTS = [[7, 8, 9] * 9 + [i, i + 1] for i in range(10, 16)] + [[5], [200, 3, 77]]
GREEDY = SamplingParams(temperature=0.0, max_tokens=14, ignore_eos=True)
SCORED = SamplingParams(temperature=0.0, max_tokens=2, prompt_logprobs=1)
DRAWN = SamplingParams(temperature=0.7, seed=5, n=2, max_tokens=9, ignore_eos=True, min_tokens=3, stop_token_ids=(4,))


def llm_of(directory: Path, count: int) -> LLM:
    options = {"dtype": "float32", "device": "cpu", "threads": 1, "chunk": 24}
    return LLM(str(directory), tensor_parallel_size=count, **options)


@pytest.mark.parametrize(
    "family", by_night(["qwen2"], ["qwen3", "qwen3_moe"])
)  # norms of heads; biases, tied embeddings; experts
def test_two_ranks_give_the_tokens_of_one(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several runs, with a larger store from the second on, and with proposed tokens in the last."""
    check_all(monkeypatch)
    directory = make_model(tmp_path / family, family, seed=4)
    alone, cut = llm_of(directory, 1), llm_of(directory, 2)
    try:
        model = cut.engine.model
        for prompts, params in ((PROMPTS[:3], GREEDY), (PROMPTS, DRAWN), (PROMPTS * 2, GREEDY), (PROMPTS, GREEDY)):
            model.config = replace(model.config, speculate="ngram" if (prompts, params) == (PROMPTS, GREEDY) else "off")
            wanted, got = (
                [c.token_ids for o in llm.generate(prompts, params) for c in o.outputs] for llm in (alone, cut)
            )
            assert got == wanted
        assert cut.stats().drafted_tokens
        wanted, got = ([o.prompt_logprobs for o in llm.generate(PROMPTS, SCORED)] for llm in (alone, cut))
        for one, other in zip(chain.from_iterable(wanted), chain.from_iterable(got), strict=True):
            assert (one is None) == (other is None)
            assert one is None or one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert cut.engine.model.decoder.spec.n_heads == 2 and cut.spec.n_heads == 4
    finally:
        ranks = cut.engine.model.ranks
        assert ranks is not None
        ranks.stop()
    assert [other.returncode for other in ranks.others] == [0]


def test_a_rank_that_ends_is_an_error(tmp_path: Path) -> None:
    llm = llm_of(make_model(tmp_path / "llama", "llama"), 2)
    ranks = llm.engine.model.ranks
    assert ranks is not None
    try:
        llm.generate(PROMPTS[:2], GREEDY)
        ranks.others[0].kill()
        ranks.others[0].wait()
        with pytest.raises(
            UmbelError, match="tensor-parallel rank 1 of 2 ended with signal 9; what is finished is kept"
        ):
            llm.generate(PROMPTS, GREEDY)
    finally:
        ranks.stop()


def test_a_rank_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_model(tmp_path / "llama", "llama")
    monkeypatch.setattr("umbel.engine.ranks.sys.executable", shutil.which("false"))
    with pytest.raises(UmbelError, match="rank 1 of 2 ended with exit code 1 before it had started"):
        llm_of(directory, 2)


FIRST = """
import os, sys
from umbel.api import LLM
llm = LLM(sys.argv[1], tensor_parallel_size=2, device="cpu", threads=1)
print(llm.engine.model.ranks.others[0].pid, flush=True)
sys.stdin.read()
"""


def listening(pid: int) -> set[str]:
    """Addresses, as the kernel writes them, on which a process awaits connections."""
    names = [os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in names:
                found.add(fields[1].split(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="looks for sockets in /proc")
def test_ranks_listen_on_loopback_alone_and_end_with_the_first(tmp_path: Path) -> None:
    """Whatever the environment says of interfaces, and in whatever way the first rank ends."""
    directory = make_model(tmp_path / "llama", "llama")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "PYTHONPATH": str(ROOT / "src")}
    command, pipe = [sys.executable, "-c", FIRST, str(directory)], subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as first:
        assert first.stdout is not None
        other = int(first.stdout.readline())
        for pid in (first.pid, other):
            assert listening(pid) <= {"0100007F", "00000000000000000000000001000000"}
        first.kill()
        first.wait()
        wait_until(lambda: ended(other))


def test_shapes_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    directory = make_model(tmp_path / "llama", "llama")
    with pytest.raises(UsageError, match="n_heads is 4, which it must divide"):
        llm_of(directory, 3)
    experts = make_model(tmp_path / "mixtral", "mixtral", intermediate_size=49)
    with pytest.raises(UsageError, match="the width of experts is 49, which it must divide"):
        llm_of(experts, 2)
    with pytest.raises(UsageError, match="at least 1"):
        llm_of(directory, 0)
