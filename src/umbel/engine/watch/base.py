"""The seam of what looks at sampled tokens: stopping criteria, what samples collect, which tokens may be drawn next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from umbel.ir.logit_changes import LogitChanges
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import WRITER, Pooler, Vector
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens, TokenIds
from umbel.ir.token_masks import DrawMasks
from umbel.sched.request_table import RequestTable
from umbel.spec.base import Drafts
from umbel.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a watcher is made with: the rows (more may be added later), the tokenizer (None: there is none), the number
    of tokens in the model's vocabulary (None: not known, as of a simulated model), whether steps are decided `ahead`:
    before the tokens of the last one are known, the tokens that end a text, what makes vectors of the model's, and the
    mean of a row's states, once, where it wants that."""

    requests: RequestTable
    tokenizer: Tokenizer | None = None
    vocab_size: int | None = None
    ahead: bool = False
    eos: tuple[int, ...] = ()
    pooler: Pooler = WRITER
    mean_of: Callable[[int], Vector | None] = lambda row: None


class Watcher:
    """Looks at the tokens that samples of some rows are given. What it holds of a sample goes by the sample's rank.

    `lockstep`: no step is decided for its samples before it has seen their last tokens, also where the runner works a
    step ahead, and no tokens are proposed for them. `masking`: it says which tokens its samples may draw.
    `forcing`: it knows of tokens that its samples have to give next; it is in lockstep.
    `naming`: it says which tokens' log-probabilities are wanted instead of the most likely ones'; one watcher does.
    `changing`: it changes the logits that they draw from; one of the watchers of a row at most does.
    `pooling`: its samples draw no tokens but vectors; one watcher does.
    """

    lockstep = False
    masking = False
    forcing = False
    naming = False
    changing = False
    pooling = False

    def __init__(self, around: Surroundings):
        self.requests = around.requests

    def watches(self, params: SamplingParams) -> bool:
        """Whether samples of rows with such parameters are its own."""
        return True

    def meet(self, params: Sequence[SamplingParams]) -> None:
        """Rows with these parameters, which it watches, were added; each object once."""

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Samples `which` (indices, ascending) of the step are its own: say in `outcomes` what follows from their
        tokens, of which the watchers before it have kept the first `outcomes.keep`."""

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """The tokens that samples `which` may draw, with an entry for each draw of the step; None: any. Asked before
        each step in which they draw, if it is `masking`."""
        return None

    def forced(self, ranks: Ints, rows: Ints, most: Ints) -> Drafts | None:
        """The tokens, at most `most[i]` of sample `ranks[i]`, in whose places nothing else may be drawn; none ends an
        answer. Asked, if it is `forcing`, before a step, in which the first of them may be computed as if proposed."""
        return None

    def changes(self, drawing: Drawing, which: Ints) -> LogitChanges | None:
        """What becomes of the logits that samples `which` draw from. Asked before each step in which they draw, if it
        is `changing`; of a step that checks proposed tokens, each draw has those in front of it."""
        return None

    def named(self, drawing: Drawing, which: Ints) -> Ints | None:
        """The tokens whose log-probabilities samples `which` want (`[draws of the step, most]`), -1 for none. Asked
        before each step in which they draw, if it is `naming`."""
        return None

    def adopt(self, rank: int, row: int, tokens: TokenIds, logprobs: Sequence[TokenLogprobs] | None = None) -> None:
        """The sample has further tokens that it did not draw here: those of the sample that it was forked from or of
        itself before it was taken out, with their log-probabilities where known, or ones that were given to it. The
        array is another's: read it now."""

    def collected(self, rank: int) -> tuple[TokenLogprobs, ...] | None:
        """The log-probabilities of a sample's tokens so far, where it holds them."""
        return None

    def forget(self, ranks: Ints) -> None:
        """These samples are gone: ended, abandoned or cancelled. It may not know all of them."""
