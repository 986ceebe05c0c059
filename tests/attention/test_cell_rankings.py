"""How selectors rank cells, against what dense attention looks at: where their paper says it works, and where not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.attention.planted import DIM, STRENGTH, OnePath, head_of, kept, tiles_of, view_of
from tests.attention.test_prompt_selectors import made
from umbel.attention.select.base import KeyBounds, KeyNeed
from umbel.attention.select.covers import cover, top
from umbel.attention.select.hip import descend
from umbel.attention.select.lines import PROBES, predicted
from umbel.attention.select.proxy_attn import STRIDE, proxy_scores
from umbel.attention.select.scores import score_cells
from umbel.kernels.view import GRID

WINDOW = 1024


def drifting(length: int, seed: int, spread: int = 512) -> OnePath:
    """A path of one head whose keys are like their neighbours: a line between points that lie `spread` tokens apart,
    and queries that look at some point of it."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(length // spread + 2, DIM, generator=generator)
    at = torch.arange(length) / spread
    low, share = at.long(), (at % 1)[:, None]
    keys = points[low] * (1 - share) + points[low + 1] * share + 0.2 * torch.randn(length, DIM, generator=generator)
    queries = STRENGTH * points[int(torch.randint(1, len(points) - 2, (1,), generator=generator))]
    queries = queries + 0.05 * torch.randn(length, DIM, generator=generator)
    return OnePath(queries[:, None], keys[None])


def scattered(length: int, seed: int) -> OnePath:
    """A path of one head that looks at eight tokens which nothing near is like."""
    queries, keys = head_of("columns", length, seed)
    return OnePath(queries[:, None], keys[None])


def recall(path: OnePath, asked: str, count: int, begin: int) -> float:
    """The share of the `count` cells before a window that a row behind `begin` looks at most which are read there."""
    view = view_of(made(asked), path, begin, begin + 1)
    mass = path.weights(begin, begin + 1)[:, 0, :begin].unflatten(1, (-1, GRID)).sum(2)
    best = top(mass, count)
    return float(view.reads[0, 0, : begin // GRID][best[0]].float().mean())


def test_halving_finds_what_is_like_its_neighbours_and_misses_what_is_not() -> None:
    """Six of 56 cells, where 14 are read: nearly all if keys drift, little if single tokens are looked at."""
    begin = 7 * WINDOW
    smooth = [recall(drifting(begin + 1, seed), "hip:budget=0.25", 6, begin) for seed in range(12)]
    rough = [recall(scattered(begin + 1, seed), "hip:budget=0.25", 6, begin) for seed in range(12)]
    assert sum(smooth) / 12 > 0.9 and sum(rough) / 12 < 0.6, (sum(smooth) / 12, sum(rough) / 12)


def test_halving_scores_as_many_cells_in_each_round_and_a_round_more_for_twice_the_path() -> None:
    scored = {}
    for cells in (64, 128, 256, 512, 1024):
        counted = 0

        def score(some: Tensor) -> Tensor:
            nonlocal counted
            counted += some.shape[1]
            return -(some - 37).abs().float()

        found = descend(score, 1, cells, 16)
        assert found[0, 37] and int(found.sum()) == 16
        scored[cells] = counted
    assert [scored[cells] for cells in scored] == [32 * rounds for rounds in (2, 3, 4, 5, 6)]
    assert descend(lambda some: some.float(), 1, 16, 16).all()


def test_extremes_of_segments_rank_cells_as_single_tokens_do_where_keys_drift() -> None:
    """CritiPrefill: of the cells that queries look at most, nine of ten are among those that are read."""
    begin = 7 * WINDOW
    found = [recall(drifting(begin + 1, seed), "criti-prefill:budget=0.25", 8, begin) for seed in range(12)]
    assert sum(found) / 12 > 0.9, found
    view = view_of(made("criti-prefill:budget=0.25"), drifting(begin + WINDOW, 0), begin, begin + WINDOW)
    assert (view.reads[:, :, : begin // GRID].sum(2) == 14).all()


def ranks(scores: Tensor) -> Tensor:
    return scores.argsort().argsort().double()


def group_of(spread: float, heads: int = 4, length: int = 4096) -> OnePath:
    """A KV head that `heads` query heads share, whose queries differ by `spread`."""
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(length, DIM, generator=generator)
    keys += torch.randn(length // GRID, DIM, generator=generator).repeat_interleave(GRID, 0)
    common = torch.randn(1, 1, DIM, generator=generator)
    own = torch.randn(1, heads, DIM, generator=generator)
    queries = common + spread * own + 0.05 * torch.randn(length, heads, DIM, generator=generator)
    return OnePath(queries, keys[None])


def test_a_pooled_head_ranks_cells_as_each_head_does_that_is_like_it() -> None:
    """ProxyAttn: by rank correlation, from the scores of one head and a quarter of its queries, a sixteenth in all."""
    end = 3072
    lowest = {}
    for spread in (0.1, 3.0):
        path = group_of(spread)
        queries = path.q[end - PROBES : end].transpose(0, 1)
        by_proxy = proxy_scores(queries, path.k[0, :end], path.shape(0))
        own = path.weights(end - PROBES, end).mean(1).unflatten(1, (-1, GRID)).sum(2)
        found = [float(torch.corrcoef(torch.stack((ranks(by_proxy), ranks(each))))[0, 1]) for each in own]
        lowest[spread] = min(found)
    assert lowest[0.1] > 0.9 > lowest[3.0], lowest
    assert PROBES // STRIDE * 16 == PROBES * 4


def test_a_group_reads_as_many_cells_as_its_most_demanding_head_needs() -> None:
    """And heads that are not alike need more or fewer."""
    end, counts = 3072, {}
    for spread in (0.1, 3.0):
        path = group_of(spread)
        read = view_of(made("proxy-attn:mass=0.9"), path, end, end + 1).reads[0, 0, : end // GRID]
        means = path.k[0, :end].unflatten(0, (-1, GRID)).mean(1)
        alone = cover(predicted(path.q[end - PROBES : end].transpose(0, 1), means, path.shape(0)), 0.9).sum(1)
        counts[spread] = int(read.sum()), int(alone.min()), int(alone.max())
        assert counts[spread][0] == counts[spread][2]
    assert counts[3.0][2] > counts[3.0][1], counts


@pytest.mark.parametrize("length", [3072, 5120])
def test_streaming_heads_read_as_many_cells_however_long_the_path_is(length: int) -> None:
    """LServe: of heads that were planted, only the A-shape streams; it reads three cells before its window."""
    path = OnePath.of("columns", "a-shape", "diagonals", "flat", length=length)
    begin = length - WINDOW
    view = view_of(made("streaming-heads"), path, begin, length)
    read = view.reads[:, :, : begin // GRID].sum(2)
    assert (read[:, 1] == 3).all() and (read[:, [0, 2, 3]] == begin // GRID).all()
    last = view_of(made("streaming-heads"), path, length - 32, length)
    assert kept(last, path, length - 32, length)[1].mean() > 0.95


def recalled(need: KeyNeed, paths: list[OnePath], length: int) -> float:
    """The share of the eight pages with the largest products, as keys have them, that bounds find among sixteen."""
    found = []
    for path in paths:
        tiles = tiles_of(length, length + 1, answers=True)
        scores = score_cells(need, 0, path.q[length:].unflatten(1, (1, 1)), [0], tiles, path)
        true = (path.k[0, :length] @ path.q[length, 0]).unflatten(0, (-1, GRID)).amax(1)
        found.append(float(top(scores[0], 16)[0][top(true[None], 8)[0]].float().mean()))
    return sum(found) / len(found)


def test_bounds_of_few_keys_find_what_bounds_of_pages_miss() -> None:
    """LServe's pages of parts against Quest's of whole pages, both against looking at every key."""
    paths = [drifting(4096 + 1, seed, 64) for seed in range(12)]
    parts, whole = recalled(KeyBounds(16), paths, 4096), recalled(KeyBounds(GRID), paths, 4096)
    assert parts > 0.95 and parts > whole + 0.05, (parts, whole)


@pytest.mark.parametrize("turn", [3, 14, 27])
def test_what_an_answer_reads_follows_its_question(turn: int) -> None:
    """LoopServe: the end of the prompt asks for one page of 30, early, in the middle or late; at the same budget, what
    is first and near has it where it is near only. The answer then asks for another, and gets it."""
    length, generator = 30 * GRID + 100, torch.Generator().manual_seed(turn)
    topics = torch.randn(34, DIM, generator=generator).repeat_interleave(GRID, 0)[: length + 200]
    keys = topics + 0.3 * torch.randn(len(topics), DIM, generator=generator)
    queries = 0.05 * torch.randn(len(keys), 1, DIM, generator=generator)
    queries[length - 64 :] += STRENGTH * topics[turn * GRID]
    other = (turn + 9) % 30
    queries[length + 64 :] = STRENGTH * topics[other * GRID]
    path = OnePath(queries, keys[None])
    view = view_of(made("loop-serve:budget=0.2"), path, length, length + 1)
    assert view.reads[0, 0, turn] and int(view.reads[0, 0, :30].sum()) == 6
    near = view_of(made("streaming:budget=0.2"), path, length, length + 1)
    assert bool(near.reads[0, 0, turn]) == (turn == 27) and int(near.reads[0, 0, :30].sum()) == 6
    assert view_of(made("loop-serve:budget=0.2"), path, length + 130, length + 131).reads[0, 0, other]
