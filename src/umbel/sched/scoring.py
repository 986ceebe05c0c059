"""Which runs of the KV tree have tokens whose log-probabilities rows want."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.sched.request_table import RequestTable


def want_scores(kv: KVTree, requests: RequestTable, rows: NDArray[np.int64]) -> None:
    """Have the prompts of those of `rows` scored that ask for it; their nodes are in the tree, not computed yet."""
    params = requests.params
    for row in [row for row in rows.tolist() if params[row].prompt_logprobs is not None]:
        wanted, prompt = params[row], requests.prompt(row)
        path = [(node, kv.start.item(node)) for node in kv.path(kv.leaf.item(row))]
        kv.scored.add(row, prompt, path, max(wanted.logprob_start_len, 1), wanted.prompt_logprobs or 0)
