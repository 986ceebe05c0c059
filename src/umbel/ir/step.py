"""What the scheduler asks a runner to do in one forward pass, and what comes back; arrays only.

A step is a slice of the prefix forest. Its nodes stand in depth-first order (parents before children, subtrees side by
side) and its rows, one per token to compute, stand in the order of their nodes, so the rows below a node are one range:

    node            0 (shared)         1 (tip)    2 (tip)
    own rows        [0, 512)           [512,513)  [513,514)
    rows below      [512, 514)         -          -

A tip is the node that one sample of one row grows as it decodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.kept import Shortened
from umbel.ir.layer_group import LayerGroup
from umbel.ir.logit_changes import LogitChanges
from umbel.ir.scores import Scores, TokenScores
from umbel.ir.sums import RowRanges, StateSums

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a step draws, one entry per draw (`[draws]`); a sequence may draw behind several of its tokens.

    `at`: the index of the step's token whose logits are drawn from (several draws may share one). `temperature` (0 =
    greedy), `top_k` (0 = off), `top_p`, `min_p`, as in SamplingParams. `streams`, `samples`, `positions` key the
    randomness: of the request, the sample's index in it, and the position that the new token takes. `keys` are the
    numbers of the requests in the input.
    `logprobs`: how many top log-probabilities are wanted (-1 = none, 0 = the chosen token's only).
    `mask`: the row of `masks` that says which tokens may be drawn, -1 where any may. `masks` (uint32
    `[masks, ceil(vocab / 32)]`, as in ir/token_masks.py) has a bit for each token. Both are None where no draw has one.
    `filled` waits until `masks` is there, which may be filled while the model computes; None: it is there.
    `changes`: of the logits of some draws; None: of none.
    `named` (`[draws, most]`): tokens whose log-probabilities are wanted instead of those of the most likely ones, -1
    for none; a draw has as many as its `logprobs` says, or none.
    `pooled` (`[some]`): draws that give a vector instead of a token, made of the last hidden state at `at`.
    """

    at: Ints
    temperature: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats
    streams: Ints
    keys: Ints
    samples: Ints
    positions: Ints
    logprobs: Ints
    mask: Ints | None = None
    masks: NDArray[np.uint32] | None = None
    filled: Callable[[], object] | None = None
    changes: LogitChanges | None = None
    named: Ints | None = None
    pooled: Ints | None = None

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass.

    Rows (`[rows]`): `tokens` to feed, `positions` in their sequence, `fresh` (False: the row's KV is already there and
    must not be written again; only its logits are wanted).
    Nodes (`[nodes]`, depth-first): `parent` (index into the nodes of this step, -1 for a root), `start` and `end`
    (positions whose KV the node holds once the step has run), `row_begin`, `row_end` (its own rows: the last
    `row_end - row_begin` positions it holds), `below_end` (end of the range of the rows below it).
    Pages: position p of node i lives in slot `pages[page_begin[i] + (p - start) // page_size] * page_size +
    (p - start) % page_size`.
    `scope` (`[nodes]`): what the KV of each node depends on beside its tokens, as in Workload: the number of the
    adapter that its rows are computed with, 0 for none; None: all are 0.
    `answers` (`[nodes]`): which nodes hold what samples drew; None: none. `whole` (`[nodes]`): those that the selectors
    of other rows leave alone; None: none.
    `scores`: known tokens whose log-probabilities are wanted; None: of none. `sums`: rows whose states are summed.
    `kept`: what was forgotten above some rows, whose `positions` are places then; None: nothing was.
    `group`: rows that pass only some of the layers; None: all pass all.
    """

    tokens: Ints
    positions: Ints
    fresh: NDArray[np.bool_]
    parent: Ints
    start: Ints
    end: Ints
    row_begin: Ints
    row_end: Ints
    below_end: Ints
    pages: Ints
    page_begin: Ints
    page_size: int
    sampling: Sampling
    scores: Scores | None = None
    sums: RowRanges | None = None
    scope: Ints | None = None
    answers: NDArray[np.bool_] | None = None
    whole: NDArray[np.bool_] | None = None
    kept: Shortened | None = None
    group: LayerGroup | None = None

    @property
    def n_rows(self) -> int:
        """Tokens that this step computes."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Sampled ids (`[draws]`), their log-probabilities where asked, and what the step cost.

    `logprobs` (`[draws]`) is of the chosen token under the model's own distribution (before masks, changes, temperature
    and filters); `top_ids`, `top_logprobs` (`[draws, k]`) the k most likely; all None when no draw of the step asks for
    them. `bad` marks draws for which no token has a finite logit, or one is NaN: their rows end with an error. `scores`
    is what the step was asked to score. `vectors` (`[draws, width]`): those of `pooled` draws, NaN for others; None
    where there are none. `kv_tokens_read` counts the KV tokens that attention read.
    """

    token_ids: Ints
    bad: NDArray[np.bool_]
    logprobs: Floats | None = None
    top_ids: Ints | None = None
    top_logprobs: Floats | None = None
    scores: TokenScores | None = None
    vectors: NDArray[np.float32] | None = None
    sums: StateSums | None = None
    seconds: float = 0.0
    kv_tokens_read: int = 0

    def only(self, which: NDArray[np.bool_]) -> StepResult:
        """The result of some of the draws (`which`, `[draws]`)."""
        names = ("token_ids", "bad", "logprobs", "top_ids", "top_logprobs", "vectors")
        each = {name: found for name in names if (found := getattr(self, name)) is not None}
        return replace(self, **{name: found[which] for name, found in each.items()})
