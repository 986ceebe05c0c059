"""What stands out against the tokens that follow it: LagKV (arXiv 2504.04704), from keys and values alone.

Behind `SINKS` first tokens a path is cut into parts of `lag` tokens. When the part behind it is full, a part is scored:
keys, and values, are scaled in each channel by the smallest and largest number of the part that follows; the more their
scaled channels differ, the more a token stands out, by a softmax over its part for each of the two. A share stays.
The last full part and what comes behind it stay whole.

The published code cuts at the end of a prompt and whenever a part is full while it answers; so are edges here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from umbel.attention.forget.base import NOTHING, RowPath
from umbel.cost.forget import SINKS, LagMeasure
from umbel.ir.spec import ModelSpec


class LagKV(LagMeasure):
    """Of each part but the last a share `budget` stays, the same number in all heads."""

    needs = NOTHING

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        super().__init__(settings)

    def choose(self, path: RowPath) -> Tensor:
        """Score each part that was not scored yet."""
        edit, lag = path.edit, self.lag
        old, parts = self.past(edit.before), self.past(edit.end) - self.past(edit.before)
        first = SINKS + old * self.kept  # the place where the first part begins that is scored now
        raw = slice(first, first + (parts + 1) * lag)
        keys, values = (each[:, raw].reshape(len(each), parts + 1, lag, -1) for each in (path.keys, path.values))
        scores = standing_out(keys) + standing_out(values)
        best = scores.sort(dim=2, descending=True, stable=True).indices[:, :, : self.kept].sort(2).values
        chosen = (best + first + lag * torch.arange(parts, device=best.device)[:, None]).flatten(1)
        before, behind = torch.arange(first), torch.arange(first + parts * lag, len(edit.sources))
        every = (each.to(best.device).expand(len(best), -1) for each in (before, behind))
        return torch.cat((next(every), chosen, next(every)), 1)


def standing_out(parts: Tensor) -> Tensor:
    """How much each token of each part but the last stands out against the part that follows: float32 `[heads, parts -
    1, tokens]` of keys or values `[heads, parts, tokens, dim]`."""
    follows = parts[:, 1:]
    low, high = follows.amin(2, keepdim=True), follows.amax(2, keepdim=True)
    scaled = (parts[:, :-1] - low) / (high - low).clamp_min(1e-9)
    return scaled.std(3).softmax(2)
