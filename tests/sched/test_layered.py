"""Prompts that pass the layers in groups: whose turn it is, what may be read, and what becomes of those given up."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parameters import few_of
from tests.sched.test_priorities import BATCH, URGENT, Case, prompts
from umbel.cost.live import Prices
from umbel.cost.load import Load
from umbel.ir.step import Step
from umbel.sched.policies.layered import Layered, LayerPace

LAYERS = 6


class ByTokens:
    """Prices that a test reads off: so much for a step, which a mixture of experts pays once for a chunk, and little
    for each token."""

    def __init__(self, step: float = 1.0, token: float = 0.01):
        self.step, self.token = step, token

    def renewed(self) -> bool:
        return False

    def each(self, load: Load) -> np.ndarray:
        experts = self.step * (1 - 0.8**load.tokens)
        return experts + self.token * load.tokens


class Layers(Case):
    """A model of some layers; every row is watched. `groups` has the layers of each step's group, with its rows."""

    def __init__(self, n_pages: int = 400, chunk: int = 64, target: float = 0.8, prices: Prices | None = None):
        pace = LayerPace(prices or ByTokens(), target, LAYERS)
        super().__init__(n_pages, chunk, step="layered", pace=pace)
        self.groups: list[tuple[int, int, int] | None] = []
        start = self.runner.start

        def noted(step: Step):
            group = step.group
            self.groups.append(None if group is None else (group.first, group.end, len(group.rows)))
            return start(step)

        self.runner.start = noted  # type: ignore[method-assign]

    def add(self, prompts: list[list[int]], out: int, priority: int = URGENT) -> list[int]:
        rows = super().add(prompts, out, priority)
        self.scheduler.requests.streamed[rows] = True
        return rows

    @property
    def stage(self):
        (layered,) = (phase for phase in self.scheduler.phases if isinstance(phase, Layered))
        return layered.stage


def begun(case: Layers, out: int = 40) -> int:
    """A row that decodes."""
    (row,) = case.add(prompts(1, 8), out)
    case.step()
    return row


def test_a_prompt_passes_a_group_of_layers_in_each_step_and_answers_go_on() -> None:
    case = Layers()
    first = begun(case)
    (second,) = case.add(prompts(1, 50, 5), 3)
    leaf, seen = int(case.scheduler.kv.leaf[second]), []
    while second not in case.done:
        fed = case.step()
        assert fed[first] == 1, "what decodes does so in every step"
        seen.append((case.groups[-1], int(case.scheduler.kv.held[leaf])))
    passed = [group for group, _ in seen if group is not None]
    assert [one[0] for one in passed] == [0, *(one[1] for one in passed[:-1])] and passed[-1][1] == LAYERS
    assert len(passed) > 2 and {one[2] for one in passed} == {50}
    assert [held for _, held in seen[: len(passed)]] == [0] * (len(passed) - 1) + [50], "nothing before all layers are"
    case.end()


def test_it_goes_in_chunks_where_these_are_quicker() -> None:
    """Where each token costs what it costs, whatever is beside it, groups only read what decodes more often."""
    case = Layers(target=0.5, prices=ByTokens(0.0, 0.02))
    begun(case)
    case.add(prompts(1, 60, 5), 3)
    case.end()
    assert set(case.groups) == {None}


def test_no_one_else_starts_below_a_prompt_on_its_way_and_twins_draw_when_it_is_done() -> None:
    case = Layers()
    begun(case)
    (one,) = case.add([[9] * 50], 3)
    case.step()
    twins = case.add([[9] * 50, [9] * 40 + [3] * 10], 3)
    while case.stage is not None:
        assert not case.running() & set(twins)
        case.step()
    assert one not in case.done and twins[0] in case.running(), "its twin draws from the step that ends it"
    case.end()


def test_a_run_that_is_cut_in_two_on_its_way_goes_on() -> None:
    """A prompt comes that shares its beginning, so that the tree has two runs of it."""
    case = Layers()
    begun(case)
    case.add([[9] * 50], 3)
    case.step()
    nodes = len(case.stage.runs)
    case.add([[9] * 24 + [4] * 20], 3)
    case.step()
    assert case.stage is not None and len(case.stage.runs) == nodes + 1 and case.stage.tokens == 50
    case.end()
    assert case.groups.count(None) < len(case.groups)


def test_what_is_given_up_on_its_way_is_computed_again_from_the_first_layer() -> None:
    """A row is cancelled in the middle of the layers, and one that shares its prompt comes then."""
    case = Layers()
    begun(case)
    (gone,) = case.add([[9] * 50], 3)
    case.step()
    assert case.stage is not None
    case.scheduler.drop_row(gone)
    del case.jobs[gone]
    case.step()
    assert case.stage is None and case.groups[-1] is None, "and nothing waits any more"
    case.add([[9] * 50], 3)
    case.end()
    assert case.groups.count((0, 2, 50)) == 2


def test_a_prompt_between_two_layers_waits_for_more_urgent_ones() -> None:
    """The paused one gets the tokens that it gets alone, and goes on where it was."""
    case = Layers()
    first = begun(case)
    (batch,) = case.add(prompts(1, 50, 5), 6, BATCH)
    case.step()
    (urgent,) = case.add(prompts(1, 4, 9), 2, URGENT)
    done = case.stage.done
    fed = case.step()
    assert fed == {first: 1, urgent: 4} and case.groups[-1] == (done, done, 0), "it is its own from the next step on"
    while case.stage is not None:
        case.step()
    passed = [group for group in case.groups if group is not None and group[2]]
    assert [one[0] for one in passed] == [0, *(one[1] for one in passed[:-1])], "no layer is passed twice"
    case.end()
    assert case.done[urgent] < case.done[batch]


@pytest.mark.parametrize("seed", few_of([0, 1], range(2, 30)))
def test_answers_are_those_of_each_row_alone_whatever_comes_and_goes(seed: int) -> None:
    """Rows of two priorities that share beginnings, in a pool that is too small; some are cancelled."""
    rng = np.random.default_rng(seed)
    case = Layers(n_pages=int(rng.integers(40, 90)), target=float(rng.uniform(0.3, 1.2)))
    heads = [[h] * int(rng.integers(4, 40)) for h in range(3)]
    for i in range(24):
        size = int(rng.integers(1, 50))
        rows = case.add([heads[i % 3] + [10 + i] + [1] * size], int(rng.integers(1, 12)), int(rng.choice([0, 10])))
        for _ in range(int(rng.integers(0, 5))):
            if len(case.done) < len(case.jobs):
                case.step()
        if rng.random() < 0.2 and rows[0] not in case.done:
            case.scheduler.drop_row(rows[0])
            del case.jobs[rows[0]]
    case.end()
    starts = sum(group is not None and group[0] == 0 and group[2] > 0 for group in case.groups)
    assert starts >= 3
