"""What the scheduler asks a runner to do in one forward pass, and what comes back; arrays only.

A step is a slice of the prefix forest. Its nodes stand in depth-first order (parents before children, subtrees side by
side) and its rows, one per token to compute, stand in the order of their nodes, so the rows below a node are one range:

    node            0 (shared)         1 (tail)   2 (tail)
    row             0 ... 511          512        513
    own rows        [0, 512)           [512,513)  [513,514)
    rows below      [512, 514)         -          -
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass.

    Rows (`[rows]`): `tokens` to feed, `positions` in their sequence.
    Nodes (`[nodes]`, depth-first): `parent` (index into the nodes of this step, -1 for a root), `start` and `end`
    (positions whose KV the node holds once the step has run), `row_begin`, `row_end` (its own rows, of positions
    `end - (row_end - row_begin) .. end`, or the last held position again when `recompute` is set), `subtree_end`
    (end of the rows below it), `recompute` (bool: the KV of the row is already there; only its logits are wanted).
    Pages: node i owns `pages[page_offsets[i]:page_offsets[i + 1]]`; position p of it lives in slot
    `pages[...][(p - start) // page_size] * page_size + (p - start) % page_size`.
    Samples (`[samples]`): `sample_rows` (the row whose logits are drawn from), `sample_seqs` (the sequence that gets
    the token: an index into the sampling table the runner was told about), `sample_positions` (the position the new
    token will take, which keys its randomness).
    """

    tokens: Ints
    positions: Ints
    parent: Ints
    start: Ints
    end: Ints
    row_begin: Ints
    row_end: Ints
    subtree_end: Ints
    recompute: NDArray[np.bool_]
    pages: Ints
    page_offsets: Ints
    page_size: int
    sample_rows: Ints
    sample_seqs: Ints
    sample_positions: Ints

    @property
    def n_rows(self) -> int:
        """Tokens that this step computes."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Sampled ids (`[samples]`), their log-probabilities where asked, and what the step cost.

    `logprobs` (`[samples]`, NaN where not asked) is of the chosen token under the unscaled distribution;
    `top_ids`/`top_logprobs` (`[samples, k]`, -1 and NaN padded) are there when any sample of the step asks for them.
    `bad` marks samples whose logits were not finite: their rows end with an error.
    """

    token_ids: Ints
    logprobs: NDArray[np.float32] | None = None
    top_ids: Ints | None = None
    top_logprobs: NDArray[np.float32] | None = None
    bad: NDArray[np.bool_] | None = None
    seconds: float = 0.0
    kv_tokens_read: int = 0
