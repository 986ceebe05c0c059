"""A model that is cut over two processes: the tokens of one, errors instead of waiting, and no process left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parameters import some_of
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams

PROMPTS = [[7, 8, 9] * 9 + [i, i + 1] for i in range(10, 16)] + [[5], [200, 3, 77]]
GREEDY = SamplingParams(temperature=0.0, max_tokens=14, ignore_eos=True)
DRAWN = SamplingParams(temperature=0.7, seed=5, n=2, max_tokens=9, ignore_eos=True, min_tokens=3, stop_token_ids=(4,))


def llm_of(directory: Path, count: int) -> LLM:
    options = {"dtype": "float32", "device": "cpu", "threads": 1, "chunk": 24}
    return LLM(str(directory), tensor_parallel_size=count, **options)


@pytest.mark.parametrize(
    "family", some_of(["qwen2", "qwen3_moe"], ["qwen3"])
)  # norms of heads; biases, tied embeddings; experts
def test_two_ranks_give_the_tokens_of_one(tmp_path: Path, family: str) -> None:
    """Over two runs, the second with a larger store."""
    directory = make_model(tmp_path / family, family, seed=4)
    alone, cut = llm_of(directory, 1), llm_of(directory, 2)
    try:
        for prompts, params in ((PROMPTS[:3], GREEDY), (PROMPTS, DRAWN), (PROMPTS * 2, GREEDY)):
            wanted, got = (
                [c.token_ids for o in llm.generate(prompts, params) for c in o.outputs] for llm in (alone, cut)
            )
            assert got == wanted
        assert cut._model.decoder.spec.n_heads == 2 and cut.spec.n_heads == 4
    finally:
        ranks = cut._model.ranks
        assert ranks is not None
        ranks.stop()
    assert [other.returncode for other in ranks.others] == [0]


def test_a_rank_that_ends_is_an_error(tmp_path: Path) -> None:
    llm = llm_of(make_model(tmp_path / "llama", "llama"), 2)
    ranks = llm._model.ranks
    assert ranks is not None
    try:
        llm.generate(PROMPTS[:2], GREEDY)
        ranks.others[0].kill()
        ranks.others[0].wait()
        with pytest.raises(RuntimeError):
            llm.generate(PROMPTS, GREEDY)
    finally:
        ranks.stop()


def test_shapes_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    directory = make_model(tmp_path / "llama", "llama")
    with pytest.raises(UsageError, match="n_heads is 4, which it must divide"):
        llm_of(directory, 3)
    experts = make_model(tmp_path / "mixtral", "mixtral", intermediate_size=49)
    with pytest.raises(UsageError, match="the width of experts is 49, which it must divide"):
        llm_of(experts, 2)
    with pytest.raises(UsageError, match="at least 1"):
        llm_of(directory, 0)
