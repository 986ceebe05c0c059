"""Which runs of the KV tree have tokens whose log-probabilities, or means of whose states, rows want."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.ir.step import StepResult
from umbel.sched.request_table import RequestTable


def want_scores(kv: KVTree, requests: RequestTable, rows: NDArray[np.int64]) -> None:
    """Have the prompts of those of `rows` scored that ask for it; their nodes are in the tree, not computed yet."""
    params = requests.params
    for row in [row for row in rows.tolist() if params[row].prompt_logprobs is not None]:
        wanted, prompt, before = params[row], requests.fed(row), requests.places.item(row)
        path = [(node, kv.start.item(node)) for node in kv.path(kv.leaf.item(row))]
        kv.scored.add(row, prompt, path, before + max(wanted.logprob_start_len, 1), wanted.prompt_logprobs or 0)


def want_means(kv: KVTree, means: NDArray[np.bool_] | None, rows: NDArray[np.int64], first: int) -> None:
    """Have the states of prompts summed for those of `rows` that `means` flags (`[rows of the lot]`, None: none), which
    are numbered on from `first`."""
    for row in rows[means[rows]].tolist() if means is not None else ():
        path = kv.path(kv.leaf.item(first + row))
        kv.scored.summed.add(first + row, [(node, kv.length.item(node)) for node in path])


def land_wanted(kv: KVTree, result: StepResult) -> None:
    """Take in what a step that is done says of prompts."""
    if result.scores is not None:
        kv.scored.land(result.scores)
    if result.sums is not None:
        kv.scored.summed.land(result.sums)
