"""A walk over a job whose rows forget: the memory of each sample as a run that only it reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.cost.forget import Measure, held
from umbel.ir.forest import Forest
from umbel.plan.walk.samples import WalkSamples

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def forgetful(
    forest: Forest, rows: WalkSamples, measure: Measure, page: int, left: Flags
) -> tuple[Forest, WalkSamples]:
    """The forest that a walk follows, and its samples: they compute what their prompts lack as ever, and hold from
    their start what is kept of these; answers grow as if nothing of them were forgotten, and the prompts that are whole
    while they are computed are not counted. Samples that are `left` out (`[samples]`) keep all. Valid only for what a
    walk reads."""
    kept = np.where(left, rows.prompt, kept_places(measure, rows.prompt, rows.prompt))
    forgets = kept < rows.prompt
    if not forgets.any():
        return forest, rows
    n = len(kept)
    nodes, pages = np.arange(n), np.where(forgets, -(-kept // page), rows.pages)
    none = np.zeros(n, np.int64)
    alone = np.where(forgets, kept, rows.alone)
    own = Forest(np.full(n, -1), none, pages * page, nodes, nodes + 1, np.ones(n, np.int64), nodes, nodes)
    return own, replace(rows, pages=pages, prompt=kept, alone=alone, cells=none, leaf=nodes, node_cells=none)


def kept_places(measure: Measure, prompts: Ints, ends: Ints) -> Ints:
    """Places that rows keep whose prompts have so many tokens, once their paths reach `ends` (`[rows]`): at the end of
    the prompt, once that is cut down."""
    pairs, back = np.unique(np.stack([prompts, ends]), axis=1, return_inverse=True)
    each = [
        held(measure, prompt, end) if end > prompt else min(measure.live(prompt, end), end)
        for prompt, end in pairs.T.tolist()
    ]
    return np.array(each, np.int64)[back.reshape(-1)]
