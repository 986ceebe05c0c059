"""Superposed drafts: one forward a step, greedy decoding with one draft, and the search beside brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench.superposed import ALPHA, UNSEEN, WEIGHTS, Beam, Ids, NGramCounts, advance, superposed

from umbel import LLM, SamplingParams
from umbel.config import EngineConfig
from umbel.engine.build import Model

SMALL = {"dtype": "float32", "device": "cpu", "threads": 1}
PROMPT, MOST = [5, 30, 41, 22, 23], 12


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(EngineConfig.of("demo", **SMALL))


def test_one_draft_without_counts_is_greedy_decoding(model: Model) -> None:
    with LLM("demo", **SMALL) as llm:  # type: ignore[arg-type]
        wanted = llm.generate([PROMPT], SamplingParams(temperature=0.0, max_tokens=MOST, ignore_eos=True))
    (found,) = superposed(model, None, PROMPT, 1, MOST)
    assert len(found) > 3
    assert found == wanted[0].outputs[0].token_ids[: len(found)]


@pytest.mark.parametrize("k", [1, 4])
def test_a_step_takes_one_forward_whatever_the_number_of_drafts(
    model: Model, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = model.decoder.forward

    def counted(hidden: torch.Tensor, *others: object) -> torch.Tensor:
        rows.append(len(hidden))
        return forward(hidden, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(model.decoder, "forward", counted)
    drafts = superposed(model, NGramCounts([tuple(range(9, 60))]), PROMPT, k, MOST)
    assert len({*drafts}) == len(drafts) == k
    longest = max(map(len, drafts))
    assert rows[0] == len(PROMPT) and rows[1:] == [1] * (len(rows) - 1)
    assert longest <= len(rows) <= MOST


def test_counts_are_those_of_the_texts(seed: int) -> None:
    draw = np.random.default_rng(seed)
    texts = [tuple(draw.integers(0, 4, 30).tolist()) for _ in range(3)]
    counts, end = NGramCounts(texts), tuple(draw.integers(0, 4, 8).tolist())
    wanted = np.zeros(4)
    for order, weight in WEIGHTS.items():
        grams = [text[i : i + order] for text in texts for i in range(len(text) - order + 1)]
        own = [gram[-1] for gram in grams if gram[:-1] == end[-order + 1 :]]
        wanted += weight * np.array([own.count(token) / max(len(own), 1) for token in range(4)])
    assert counts.chances(end, range(4)) == pytest.approx(wanted)


def test_a_search_that_keeps_all_finds_the_best_of_all(seed: int) -> None:
    """Planted chances of three tokens, by the last two of a draft; some drafts have none of them in their counts."""
    draw = np.random.default_rng(seed)
    own = {(a, b): draw.random(3) if draw.random() < 0.8 else np.zeros(3) for a in range(-1, 3) for b in range(3)}
    logs, ends = [np.log(draw.dirichlet(np.ones(3))) for _ in range(4)], (2,)

    def chances(draft: Ids, tokens: object) -> np.ndarray:
        return own[(-1, *draft)[-2:]]

    beam = Beam([(float(one), (token,)) for one, token in zip(logs[0], (0, 1), strict=False)])
    wanted = list(beam.alive)
    done: list[tuple[float, Ids]] = []
    for step in logs[1:]:
        beam = advance(beam, step, range(3), chances, ends, 1000)
        longer = []
        for score, draft in wanted:
            mine = chances(draft, range(3))
            for token in range(3):
                more = (1 - ALPHA) * step[token] + (ALPHA * np.log(mine[token]) if mine.any() else UNSEEN)
                longer.append((score + float(more), (*draft, token)))
        done += [one for one in longer if one[1][-1] in ends]
        wanted = [one for one in longer if one[1][-1] not in ends]
    for found, expected in ((beam.alive, wanted), (beam.ended, done)):
        assert [draft for _, draft in found] == [draft for _, draft in sorted(expected, reverse=True)]
        assert [score for score, _ in found] == pytest.approx(sorted((score for score, _ in expected), reverse=True))
