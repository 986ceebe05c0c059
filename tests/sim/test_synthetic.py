"""Workloads made to measure share exactly what they say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.plan.passes.prefix import build_forest
from umbel.sim.synthetic import Synthetic


def test_groups_share_their_prefix_and_nothing_else() -> None:
    made = Synthetic(prefix=20, remainder=5, degree=4, rows=40, output=3)
    workload = made.workload()
    assert np.diff(workload.offsets).tolist() == [25] * 40
    heads = [tuple(workload.prompt(row)[:20].tolist()) for row in range(40)]
    assert sorted(map(heads.count, set(heads))) == [4] * 10
    assert len({head[0] for head in heads}) == 10  # not even a first token is shared between groups
    assert build_forest(workload).n_tokens == 10 * 20 + 40 * 5
    assert all(params.max_tokens == 3 for params in workload.params)


def test_rows_are_shuffled_by_the_seed() -> None:
    a, b, c = (Synthetic(rows=64, degree=4, prefix=10, seed=seed).workload().tokens for seed in (0, 0, 1))
    assert (a == b).all()
    assert (a != c).any()
    leaders = a.reshape(64, -1)[:, 0]
    assert (np.diff(leaders) != 0).sum() > 40  # 15 changes of group if they stood side by side


def test_a_last_group_may_be_smaller_and_prefixes_empty() -> None:
    assert build_forest(Synthetic(10, 5, 4, 10, 1).workload()).n_tokens == 3 * 10 + 10 * 5
    assert build_forest(Synthetic(0, 5, 4, 10, 1).workload()).n_tokens == 10 * 5


def test_settings_are_read_by_name() -> None:
    assert Synthetic.parse("synthetic:") == Synthetic()
    assert Synthetic.parse("synthetic:rows=3,prefix=7") == Synthetic(prefix=7, rows=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic:row=3", "did you mean 'rows'"),
        ("synthetic:rows=many", "rows='many' must be a whole number of at least 1"),
        ("synthetic:degree=0", "degree='0' must be a whole number of at least 1"),
        ("synthetic:rows=1000000,prefix=100000", "more than 1,073,741,824 prompt tokens"),
    ],
)
def test_what_cannot_be_made_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Synthetic.parse(text)
