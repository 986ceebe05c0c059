"""Scores continuations of prompts, and chooses among them: a prompt is computed once, with its continuations as
branches below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, cast

from umbel.engine.answering import Answering
from umbel.engine.intake import Prompt, as_prompts
from umbel.engine.pairing import Continuation, Pairing
from umbel.errors import InvalidRequest, UsageError
from umbel.ir.choices import Chosen, Score, check_choices
from umbel.ir.contain import row_error
from umbel.ir.params import SamplingParams
from umbel.ir.scores import scoring_params
from umbel.ir.workload import Workload
from umbel.text.continuations import Continued

Entry = TypeVar("Entry")


class Scoring(Answering):
    """Answers with numbers instead of texts."""

    def score(
        self,
        prompts: Prompt | Sequence[Prompt],
        continuations: Sequence[Continuation] | Sequence[Sequence[Continuation]] | None = None,
    ) -> list[list[Score]]:
        """For each prompt the scores of its continuations, in their order: texts or token ids, in one list for all
        prompts or a list for each. Without continuations, one score of each prompt's own tokens behind the first.

        Behind a prompt given as text, a text is tokenised as lm-evaluation-harness does (`encode_continued`); behind
        token ids or a chat, by itself, without special tokens. What cannot be scored gives a Score with `error`; the
        others go on. Raises UsageError for lists of another number than the prompts.
        """
        prompts = as_prompts(prompts)
        each = [None] * len(prompts) if continuations is None else _each(continuations, len(prompts))
        reading, rendered = Pairing(self.intake), self.intake.render(prompts)
        wanted = [reading.pairs(prompt, rendered.get(i), each[i]) for i, prompt in enumerate(prompts)]
        scores = self._scored([one for found in wanted for one in found if isinstance(one, Continued)])
        return [
            [Score.failed(row_error(one)) if isinstance(one, InvalidRequest) else next(scores) for one in found]
            for found in wanted
        ]

    def choose(
        self,
        prompts: Prompt | Sequence[Prompt],
        choices: Sequence[str] | Sequence[Sequence[str]],
        calibration_prompt: Prompt | None = None,
    ) -> list[Chosen]:
        """The most likely of some choices behind each prompt: one list of them for all, or one for each.

        With a `calibration_prompt`, such as the same instruction around an empty text or "N/A", the probabilities are
        those of a model that finds all choices equally likely there. A choice whose tokens are the beginning of
        another's gives a Chosen with `error`, as the shorter one would always be the likelier.
        """
        prompts = as_prompts(prompts)
        each = [list(map(str, mine)) for mine in _each(choices, len(prompts))]
        asked = [*prompts] if calibration_prompt is None else [*prompts, *[calibration_prompt] * len(prompts)]
        scores = Scoring.score(self, asked, each * (len(asked) // max(len(prompts), 1)))
        priors = scores[len(prompts) :] or [[]] * len(prompts)
        return [_choice(*parts) for parts in zip(each, scores, priors, strict=False)]

    def _scored(self, pairs: Sequence[Continued]) -> Iterator[Score]:
        """The scores of pairs that can be scored, in order."""
        params: dict[int, SamplingParams] = {}
        self.spec.pooler.check(None)
        for pair in pairs:
            params.setdefault(pair.n_prompt, scoring_params(pair.n_prompt))
        workload = Workload.of([pair.ids for pair in pairs], [params[pair.n_prompt] for pair in pairs])
        found = {output.row: output for output in self.execute(workload)}
        return (Score.of(found[i]) for i in range(len(pairs)))


def _each(given: Sequence[Entry] | Sequence[Sequence[Entry]], count: int) -> list[list[Entry]]:
    """A list for each of `count` prompts. Raises UsageError for another number of lists."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise UsageError(f"continuations: a {type(given).__name__} is no list of them; give a list of texts")
    if all(isinstance(one, str) or _is_ids(one) for one in given):
        return [list(cast("Sequence[Entry]", given))] * count
    if len(given) != count:
        raise UsageError(f"{count} prompts but {len(given)} lists of continuations: give one list, or one for each")
    return [list(cast("Sequence[Entry]", mine)) for mine in given]


def _is_ids(given: object) -> bool:
    return isinstance(given, Sequence) and all(isinstance(one, int) for one in given)


def _choice(choices: Sequence[str], scores: Sequence[Score], prior: Sequence[Score]) -> Chosen:
    try:
        if all(score.error is None for score in scores):
            check_choices(choices, [score.token_ids for score in scores])
    except InvalidRequest as error:
        return Chosen("", -1, (), (), row_error(error))
    return Chosen.among(choices, scores, prior)
