"""A draft model chooses which parts of a prompt the model reads.

Speculative prefill (arXiv 2502.02789): the draft reads the whole prompt and goes on for a few tokens; a part of it
counts by how much its last token and these look at it. The model reads a share of the parts, at the positions that they
had, and answers as if the others were not there. Only what no other row of the plan shares is cut, as the choice
depends on how a prompt ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.cost.cut import PART, parts_kept
from umbel.ir.cut_workload import CutWorkload
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest

Ints = NDArray[np.int64]


class Look(Protocol):
    """What says how much each token of a prompt counts."""

    def look(self, prompt: NDArray[np.int32]) -> NDArray[np.float64]:
        """A number for each token (`[tokens]`), the larger the better."""
        ...


class SpecPrefill:
    """Keeps a share `keep` of the parts of prompts that are theirs alone, by what `draft` looks at; prompts and answers
    have at most `context` positions."""

    def __init__(self, settings: Mapping[str, float], draft: Look, context: int):
        self.keep, self.draft, self.context = settings["keep"], draft, context

    def cut(self, workload: Workload) -> Workload:
        """The rows without what the model will not read; as they are where nothing is left out."""
        forest = build_forest(workload)
        begins = np.where(forest.rows_below == 1, forest.start, forest.end)[forest.leaf]
        each = enumerate(zip(begins.tolist(), workload.params, strict=True))
        at = tuple(self._kept(workload.prompt(row), begin, params) for row, (begin, params) in each)
        if all(kept is None for kept in at):
            return workload
        whole = np.diff(workload.offsets)
        prompts = [workload.prompt(row) for row in range(len(at))]
        tokens = [prompt if kept is None else prompt[kept] for prompt, kept in zip(prompts, at, strict=True)]
        return CutWorkload(
            np.concatenate(tokens),
            np.append(0, np.cumsum([len(some) for some in tokens])),
            [self._limited(params, length) for params, length in zip(workload.params, whole.tolist(), strict=True)],
            workload.keys,
            workload.draw_keys,
            workload.scope,
            at=at,
            whole=whole,
        )

    def _kept(self, prompt: NDArray[np.int32], begin: int, params: SamplingParams) -> Ints | None:
        """Positions that stay of a prompt whose own tokens are those from `begin` on; None: all. Prompts stay whole
        whose tokens are scored, or of which a vector is made."""
        parts, keep = parts_kept(len(prompt) - begin, self.keep)
        if keep == parts or params.prompt_logprobs is not None or params.pooling_params is not None:
            return None
        looks = self.draft.look(prompt)[begin:]
        each = [looks[first : first + PART].mean() for first in range(0, len(looks), PART)]
        # The first part tells the row from those that share what is before it, and from the last one tokens are drawn.
        each[0] = each[-1] = np.inf
        chosen = np.sort(np.argsort(-np.array(each), kind="stable")[:keep])
        own = (begin + chosen[:, None] * PART + np.arange(PART)).ravel()
        return np.concatenate([np.arange(begin), own[own < len(prompt)]])

    def _limited(self, params: SamplingParams, length: int) -> SamplingParams:
        """Parameters by which no answer goes beyond the context, in which the whole prompt counts."""
        room = max(self.context - length, 1)
        return replace(params, max_tokens=room if params.max_tokens is None else min(params.max_tokens, room))
