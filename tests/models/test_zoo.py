"""Every family that the decoder computes, against transformers: logits, and greedy tokens of batches.

Models are made and saved by transformers' own classes, with norms and biases that show; prompts end at borders of
windows, pages, chunks and original contexts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import key_cases
from tests.models.dense import dense_logits
from tests.models.test_decoder import OwnKeys
from tests.models.zoo import CASES, VOCAB, make_zoo_model, sum_token_by_token
from tests.oracle.hf import agreement, greedy
from tests.parameters import few_of, some_of
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.linear import summed
from umbel.linear.dense import DenseMethod
from umbel.models.architectures import FAMILIES
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.shards import Shard, build_shard
from umbel.models.weights import StoredWeights

LENGTHS = (1, 15, 16, 17, 23, 24, 25, 63, 64, 65, 100)
N_TOKENS = 8
OF_MIXTURES = frozenset(name for name, row in FAMILIES.items() if row.experts)  # tests/models/mixtures.py
SHORT = ["llama", "gemma2", "gemma3", "olmo3-yarn", "cohere2", "falcon-40b", "gpt2", "opt", "phi-normed"]
SHORT += ["ministral3", "lfm2", "qwen3.5"]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle whose sums are as long as ours."""
    sum_token_by_token(monkeypatch)


@dataclass(frozen=True)
class Subject:
    """A model on disk, and as transformers has it."""

    directory: Path
    theirs: Any
    prompts: list[list[int]]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Subject]]:
    """Those that were made, by the names of their cases."""
    yield {}


def subject(name: str, made: dict[str, Subject], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    if name not in made:
        directory = tmp_path_factory.mktemp("zoo")
        model = make_zoo_model(directory, name, seed=list(CASES).index(name))
        made[name] = Subject(directory, model, prompts(list(CASES).index(name)))
    return made[name]


def prompts(seed: int) -> list[list[int]]:
    """Prompts of lengths at borders, of which every second one begins as the longest does."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(VOCAB - 1, (length,), generator=generator).tolist() for length in LENGTHS]
    return [rows[-1][: len(row) - 1] + row[-1:] if i % 2 else row for i, row in enumerate(rows)]


@pytest.mark.parametrize("name", CASES)
def test_logits(name: str, subjects: dict[str, Subject], tmp_path_factory: pytest.TempPathFactory) -> None:
    one = subject(name, subjects, tmp_path_factory)
    spec = read_spec(one.directory)
    decoder = Decoder(spec, StoredWeights(one.directory, spec, torch.float32))
    for prompt in one.prompts:
        with torch.inference_mode():
            theirs = one.theirs(torch.tensor([prompt])).logits[0]
        assert (dense_logits(decoder, prompt) - theirs).abs().max() <= 2e-4, len(prompt)
    assert theirs.std() > 0.05


@pytest.mark.parametrize("name", few_of(SHORT, [name for name in CASES if name not in SHORT]))
def test_greedy(name: str, subjects: dict[str, Subject], tmp_path_factory: pytest.TempPathFactory) -> None:
    """In one batch that shares beginnings, in chunks of 7, from a pool that holds a part of the rows."""
    one = subject(name, subjects, tmp_path_factory)
    params = SamplingParams(temperature=0.0, max_tokens=N_TOKENS)
    llm = LLM(str(one.directory), dtype="float32", device="cpu", threads=1, chunk=7, kv_tokens=320, prefix="every-fork")
    answers = greedy(one.directory, one.prompts, N_TOKENS, one.theirs)
    assert len({tuple(answer.ids) for answer in answers}) > 3
    for prompt, output, answer in zip(one.prompts, llm.generate(one.prompts, params), answers, strict=True):
        assert output.error is None, output.error
        assert agreement(output.outputs[0].token_ids, answer) != "different", len(prompt)


@pytest.mark.parametrize("key", key_cases.OF_ZOO)
def test_keys(key: str, tmp_path: Path) -> None:
    """A config that says something else makes another model, of us as of transformers."""
    name, overrides = key_cases.OF_ZOO[key]
    model = make_zoo_model(tmp_path, name, **overrides)
    spec = read_spec(tmp_path)
    prompt = prompts(0)[-1]
    with torch.inference_mode():
        theirs = model(torch.tensor([prompt])).logits[0]
    ours = dense_logits(Decoder(spec, StoredWeights(tmp_path, spec, torch.float32)), prompt)
    assert (ours - theirs).abs().max() <= 5e-4  # the delta rule adds up in another order in torch


def test_every_family_is_in_the_zoo() -> None:
    assert {kind for kind, _ in CASES.values()} | OF_MIXTURES == FAMILIES.keys()


@pytest.mark.parametrize(
    "name", some_of(["gemma2", "cohere", "opt", "olmo2"], ["hunyuan", "phi-normed", "glm4", "arcee"])
)
@torch.inference_mode()
def test_rows_do_not_depend_on_their_neighbours(name: str, tmp_path: Path) -> None:
    """To the last bit, in norms, activations and rotations that have no kernels of their own."""
    make_zoo_model(tmp_path, name)
    spec = read_spec(tmp_path)
    decoder = Decoder(spec, StoredWeights(tmp_path, spec, torch.float32))
    tokens, positions = torch.randint(VOCAB, (70,)), torch.arange(70) * 7 % 200

    def run(begin: int, end: int) -> torch.Tensor:
        attention = OwnKeys(decoder, end - begin)
        hidden = decoder.embed(tokens[begin:end], positions[begin:end])
        return decoder.logits(decoder.forward(hidden, decoder.batch(positions[begin:end]), attention))

    whole = run(0, 70)
    for size in (1, 2, 3, 5, 8, 15, 16, 17, 33, 64):
        for begin in (0, 1, 70 - size):
            assert torch.equal(run(begin, begin + size), whole[begin : begin + size]), (size, begin)


@pytest.mark.parametrize("name", some_of(["stablelm-parallel", "gemma3", "gpt2"], ["cohere", "falcon-40b", "glm4"]))
def test_ranks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, each a thread, give the logits of one."""
    make_zoo_model(tmp_path, name)
    spec, prompt = read_spec(tmp_path), prompts(0)[-1]
    weights = StoredWeights(tmp_path, spec, torch.float32)
    parts: dict[int, torch.Tensor] = {}
    meeting, rank_of = threading.Barrier(2), threading.local()

    def add_up(part: torch.Tensor) -> torch.Tensor:
        parts[rank_of.rank] = part
        meeting.wait()
        total = parts[0] + parts[1]
        meeting.wait()
        return total

    def run(rank: int) -> torch.Tensor:
        rank_of.rank = rank
        return dense_logits(build_shard(spec, weights, Shard(rank, 2), torch.device("cpu"), DenseMethod()), prompt)

    monkeypatch.setattr(summed, "add_up", add_up)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(run, range(2))
    assert torch.equal(one, other)
    assert (one - dense_logits(Decoder(spec, weights), prompt)).abs().max() <= 2e-4
