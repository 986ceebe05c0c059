"""One look at the prompt by its last token: SAGE-KV (arXiv 2503.08879).

Once, when a path is cut down first, the query of the prompt's last token scores what lies between the first tokens and
the last ones; query heads that share a KV head are summed, and each KV head keeps what it has most weight for. From
there on what was kept stays, and the last tokens are a window that goes on with the answer. No query is scored again.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from umbel.attention.forget.base import LAST, RowPath
from umbel.attention.select.lines import weights_of
from umbel.cost.forget import PromptShareMeasure
from umbel.ir.spec import ModelSpec

SINKS = 4


class SageKV(PromptShareMeasure):
    """Of a prompt's share `budget` the first SINKS tokens, a quarter of the last ones, and of those between them the
    ones that the last query has most weight for."""

    needs = LAST

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        super().__init__(settings)

    def choose(self, path: RowPath) -> Tensor:
        """Look once, then let the window go on."""
        edit, heads = path.edit, path.shape.n_kv_heads
        places, live = len(edit.sources), len(edit.targets)
        recent = live // 4
        last = torch.arange(places - recent, places)
        if edit.before:
            return torch.cat((torch.arange(live - recent), last)).expand(heads, -1)
        scores = last_weights(path)[:, SINKS : places - recent]
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : live - recent - SINKS].sort(1).values
        ends = (each.to(best.device).expand(heads, -1) for each in (torch.arange(SINKS), last))
        return torch.cat((next(ends), best + SINKS, next(ends)), 1)


def last_weights(path: RowPath) -> Tensor:
    """What the prompt's last query weighs each place with, summed over the heads of a group: `[n_kv_heads, places]`; 0
    for tokens of the answer, which it does not see."""
    prompt, shape = path.edit.prompt, path.shape
    grouped = path.queries(prompt - 1, prompt).reshape(shape.n_kv_heads, shape.group_size, 1, -1)
    found = path.keys.new_zeros(path.keys.shape[:2])
    for head, (mine, keys) in enumerate(zip(grouped, path.keys, strict=True)):
        found[head, :prompt] = weights_of(mine, keys[:prompt], shape).sum((0, 1))
    return found
