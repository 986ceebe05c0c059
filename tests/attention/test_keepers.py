"""What each keeper keeps, against plain loops over one row: what it was published to keep, and what it promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conformance.test_forget import PAGE, SPEC, Numbers, a_job, keeper_of, ran, scheduler_for, steps_of
from tests.sched.drive import Job
from umbel.attention.forget import sage
from umbel.attention.forget.base import Keeper
from umbel.cost.forget import LEAST, SINKS, held
from umbel.ir.kept import Edit
from umbel.ir.kv_shape import KVShape

PROMPT, GROUP = 230, 2
Seen = list[list[int]]  # the positions that a token sees, for each KV head


def weights(queries: Tensor, keys: Tensor) -> Tensor:
    """The weights that the queries of one position (`[group, dim]`) give keys, summed over the group."""
    return (queries @ keys.T * SPEC.head_dim**-0.5).softmax(-1).sum(0)


def sink_window(q: Tensor, k: Tensor, v: Tensor, end: int) -> Seen:
    """Four first positions and 40 before the last edge."""
    edge = max(PROMPT, end // 32 * 32)
    return [[p for p in range(end + 1) if p < 4 or p >= edge - 40]] * len(k)


def lag_kv(q: Tensor, k: Tensor, v: Tensor, end: int) -> Seen:
    """Of each part of 16 but the last full one, the 4 whose scaled channels differ most."""
    lag, kept = 16, 4
    edge = max([PROMPT, *(SINKS + lag * n for n in range(100) if PROMPT < SINKS + lag * n <= end)])
    parts = (edge - SINKS) // lag
    seen = []
    for keys, values in zip(k, v, strict=True):
        mine = list(range(SINKS))
        for part in range(parts - 1):
            begin = SINKS + part * lag
            scores = sum(torch.softmax(torch.stack(_spreads(x, begin, lag)), 0) for x in (keys, values))
            mine += sorted(begin + i for i in sorted(range(lag), key=lambda i: -float(scores[i]))[:kept])
        seen.append([*mine, *range(SINKS + (parts - 1) * lag, end + 1)])
    return seen


def _spreads(x: Tensor, begin: int, lag: int) -> list[Tensor]:
    """How much the channels of each token of a part differ, scaled by those of the part behind it."""
    behind = x[begin + lag : begin + 2 * lag]
    low, high = behind.min(0).values, behind.max(0).values
    return [((x[begin + i] - low) / (high - low)).std() for i in range(lag)]


def sage_kv(q: Tensor, k: Tensor, v: Tensor, end: int) -> Seen:
    """58 of 230: 4 first ones, 40 by the last query, and a window of 14 before the last edge."""
    edge = max(PROMPT, end // 32 * 32)
    seen = []
    for queries, keys in zip(q, k, strict=True):
        scores = weights(queries[:, PROMPT - 1], keys[:PROMPT]).tolist()
        best = sorted(range(4, PROMPT - 14), key=lambda p: -scores[p])[:40]
        seen.append([*range(4), *sorted(best), *range(edge - 14, end + 1)])
    return seen


def h2o(q: Tensor, k: Tensor, v: Tensor, end: int) -> Seen:
    """Token by token: each gives its weights to what it sees; at edges the heaviest by the mean and the last stay."""
    seen = []
    for queries, keys in zip(q, k, strict=True):
        mine, sums, counts = list[int](), dict[int, float](), dict[int, int]()
        for position in range(end + 1):
            if position == PROMPT or (position > PROMPT and position % 32 == 0):
                upto = (position // 32 + 1) * 32
                live = max(32, -(-upto // 4) - (upto - position))
                recent = live - live // 2
                means = {p: sums[p] / counts[p] for p in mine[:-recent]}
                mine = [*sorted(sorted(means, key=lambda p: -means[p])[: live // 2]), *mine[-recent:]]
            mine.append(position)
            for p, weight in zip(mine, weights(queries[:, position], keys[mine]).tolist(), strict=True):
                sums[p], counts[p] = sums.get(p, 0.0) + weight, counts.get(p, 0) + 1
        seen.append(mine)
    return seen


ORACLES: dict[str, tuple[str, Callable[[Tensor, Tensor, Tensor, int], Seen]]] = {
    "sink-window": ("sinks=4,window=40", sink_window),
    "lag-kv": ("budget=0.25,lag=16", lag_kv),
    "sage-kv": ("budget=0.25", sage_kv),
    "h2o": ("budget=0.25", h2o),
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_row_sees_what_was_published(name: str) -> None:
    """Against softmax over the positions that plain loops find."""
    job, (settings, oracle) = a_job(), ORACLES[name]
    run = ran(name, settings, job, 1000)
    tokens = np.array([*job.prompts[0], *run.tokens[0, 0]])
    q, k, v = (each.transpose(0, 1).double() for each in Numbers().qkv(tokens, np.arange(len(tokens))))
    q = q.unflatten(0, (len(k), GROUP))
    for position in (PROMPT, 255, 256, 257, 271, 272, 273, 318):
        out = run.found[0, 0, position + 1].unflatten(0, (len(k), GROUP)).double()
        for head, at in enumerate(oracle(q, k, v, position)):
            scores = q[head, :, position] @ k[head, at].T * SPEC.head_dim**-0.5
            assert torch.allclose(out[head], scores.softmax(-1) @ v[head, at], atol=2e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_places_are_what_the_measure_says_at_every_step(name: str) -> None:
    """And a share is never passed once the prompt is computed: "resident tokens never exceed budget at any step"."""
    job, settings = Job([list(range(40)) * 6], [1], [300]), ORACLES[name][0]
    measure = keeper_of(name, settings)
    scheduler, most = scheduler_for(name, settings, job, 60, 500), 0
    for step in steps_of(job, scheduler, {}):
        if step.kept is not None:
            position = int(step.kept.positions[-1])
            places = int(step.end[-1]) - 1
            assert places == held(measure, 240, position) - (position == measure.last_edge(240, position)) * (
                held(measure, 240, position) - min(measure.live(240, position), position)
            )
            most = max(most, places / max(position, 1))
            if name == "h2o":
                assert places <= max(LEAST + 32, -(-position // 4))
    assert 0.05 < most < 0.5


class Planted:
    """One path up to the end of its prompt, of which nothing was forgotten. Implements `RowPath`."""

    shape = KVShape(2, 1, 16, 16, 0.25)
    notes = None

    def __init__(self, length: int, kept: int, needles: list[int]):
        generator = torch.Generator().manual_seed(5)
        self.edit = Edit(np.arange(length), np.arange(kept), length, 0, length)
        self.keys = torch.randn(1, length, 16, generator=generator)
        self.values = torch.randn(1, length, 16, generator=generator)
        self.asked = torch.randn(2, length, 16, generator=generator) * 0.1
        self.keys[0, needles] = 3.0
        self.asked += 1.0

    def queries(self, begin: int, end: int) -> Tensor:
        """Queries that all look for the needles."""
        return self.asked[:, begin:end]

    def note(self, numbers: Tensor) -> None:
        """Nothing comes behind it."""


def test_what_is_looked_for_stays_where_a_window_loses_it() -> None:
    needles = [37, 121, 260]
    for name in ("h2o", "sage-kv"):
        keeper = keeper_of(name, "budget=0.25")
        kept = keeper.choose(Planted(400, keeper.live(400, 400), needles))
        assert set(needles) <= set(kept[0].tolist())
        size = kept.shape[1]
        window = keeper_of("sink-window", f"sinks=4,window={size - 4}").choose(Planted(400, size, needles))
        assert window.shape == kept.shape and not set(needles) & set(window[0].tolist())


def test_sage_looks_once_at_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """One selection for each sample, and memories that grow no more."""
    looks = []
    monkeypatch.setattr(sage, "last_weights", lambda path: looks.append(path) or path.keys[..., 0])
    run = ran("sage-kv", "budget=0.25", a_job(2), 300)
    assert len(looks) == 3 and run.scheduler.kv.apart.places_forgotten > 400


def test_memory_of_a_long_answer_is_flat() -> None:
    """Five times the budget is decoded in the same pages: what is known of the answer's length does not matter."""
    job = Job([list(range(40)) * 2], [1], [400])
    for name, settings in (("sink-window", "sinks=4,window=60"), ("sage-kv", "budget=0.9")):
        scheduler = scheduler_for(name, settings, job, 9, 500)
        for _ in steps_of(job, scheduler, {}):
            pass
        assert scheduler.peak_pages <= 9 < job.largest_row(PAGE) / 3


def test_every_keeper_is_asked_here() -> None:
    from tests.conformance.test_forget import ROWS

    assert ORACLES.keys() == ROWS.keys()
    keepers: list[Keeper] = [keeper_of(name, settings) for name, (settings, _) in ORACLES.items()]
    assert len({keeper.needs for keeper in keepers}) == 3
