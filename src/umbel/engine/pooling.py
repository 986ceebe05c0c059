"""Vectors of prompts instead of answers: embeddings, classes, and how well texts go together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import nan
from typing import Any

from umbel.engine.answering import Prompts
from umbel.engine.intake import Prompt, as_prompts
from umbel.engine.pooling_output import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    NoVector,
    PoolingOutput,
    PoolingRequestOutput,
    RankedDocument,
    ScoringOutput,
    ScoringRequestOutput,
)
from umbel.engine.progress_line import progress_line
from umbel.engine.scoring import Scoring
from umbel.errors import UsageError
from umbel.ir.neutral import check_neutral
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import TASKS, PoolingParams, cosine
from umbel.ir.request import RowError
from umbel.text.pairs import encode_pairs

One = PoolingParams | Mapping[str, Any] | None
Asked = One | Sequence[One]
Bar = bool | Callable[..., Any] | None
NOTHING = RowError("skipped", "the prompt was left out, as its truncation asks for")
_KEYWORDS = ("pooling_params", "use_tqdm", "truncate_prompt_tokens")


class Pooling(Scoring):
    """Gives vectors, and what follows from them. `for_vectors`: these are what it was made for, whatever its model is
    for."""

    for_vectors = False

    def embed(
        self,
        prompts: Prompts,
        pooling_params: Asked = None,
        *,
        use_tqdm: Bar = None,
        truncate_prompt_tokens: int | None = None,
        **others: object,
    ) -> list[EmbeddingRequestOutput]:
        """The embedding of each prompt, in their order: the last hidden states (behind the last norm), pooled and
        normalised as the model's files say, or as `pooling_params` do, which may be a list with one for each prompt. A
        prompt that cannot be run gives an output with `error`, and the others go on. Raises InvalidRequest for what
        this model does not give, UsageError for a list of another length."""
        check_neutral("embed", others, _KEYWORDS)
        asked = self._asked(pooling_params, "embed")
        found = self._vectors(prompts, asked, use_tqdm, truncate_prompt_tokens)
        return [EmbeddingRequestOutput(*one.of(EmbeddingOutput)) for one in found]

    def classify(
        self,
        prompts: Prompts,
        pooling_params: Asked = None,
        *,
        use_tqdm: Bar = None,
        truncate_prompt_tokens: int | None = None,
        **others: object,
    ) -> list[ClassificationRequestOutput]:
        """The probabilities of each prompt's classes, by a model with a head for them (`*ForSequenceClassification`).
        Softmax or sigmoid, as the config's `problem_type` and number of labels say. Errors as of `embed`."""
        check_neutral("classify", others, _KEYWORDS)
        asked = self._asked(pooling_params, "classify")
        labels = self.spec.pooler.labels
        return [
            ClassificationRequestOutput(
                *one.of(lambda vector: ClassificationOutput(vector, _likeliest(labels, vector)))
            )
            for one in self._vectors(prompts, asked, use_tqdm, truncate_prompt_tokens)
        ]

    def encode(
        self,
        prompts: Prompts,
        pooling_params: Asked = None,
        *,
        pooling_task: str | None = None,
        use_tqdm: Bar = None,
        truncate_prompt_tokens: int | None = None,
        **others: object,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """The vectors of prompts as they are (`outputs.data`), of `pooling_task` "embed" or "classify"; None: whichever
        the model is for."""
        check_neutral("encode", others, (*_KEYWORDS, "pooling_task"))
        if pooling_task not in (None, *TASKS):
            raise UsageError(f"pooling_task={pooling_task!r}: must be one of {', '.join(TASKS)}")
        asked = self._asked(pooling_params, pooling_task or self.spec.pooler.task)
        found = self._vectors(prompts, asked, use_tqdm, truncate_prompt_tokens)
        return [PoolingRequestOutput(*one.of(PoolingOutput)) for one in found]

    def score(self, prompts: Any, continuations: Any = None, *, use_tqdm: Bar = None) -> Any:
        """Of a model that writes, the log-probabilities of continuations (`Scoring.score`). Of one that is for vectors,
        what `similarity` gives, as in vLLM."""
        if self.spec.pooler.runner == "generate" and not self.for_vectors:
            return super().score(prompts, continuations)
        return self.similarity(prompts, continuations, use_tqdm=use_tqdm)

    def similarity(
        self, data_1: Prompt | Sequence[Prompt], data_2: Prompt | Sequence[Prompt], *, use_tqdm: Bar = None
    ) -> list[ScoringRequestOutput]:
        """How well each text of `data_2` goes with that of `data_1`, of which there may be one for all: what vLLM's
        `LLM.score` gives. A model with a head for one class (a cross-encoder) reads both as one text; of other models
        it is the cosine of their embeddings."""
        left, right = as_prompts(data_1), as_prompts(data_2)
        if len(left) not in (1, len(right)):
            raise UsageError(f"{len(left)} and {len(right)} texts: give as many, or one on the left")
        left = [left[0]] * len(right) if len(left) == 1 else left
        if self.spec.pooler.labels:
            return self._crossed(left, right, use_tqdm)
        vectors = list(self._vectors([*left, *right], self._asked(None, "embed"), use_tqdm, None))
        return [
            _scored(i, *pair) for i, pair in enumerate(zip(vectors[: len(left)], vectors[len(left) :], strict=True))
        ]

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, use_tqdm: Bar = None
    ) -> list[RankedDocument]:
        """Documents by how well they go with a query, best first; the first `top_n` of them (None: all). Those that
        cannot be read come last."""
        scores = self.similarity(query, documents, use_tqdm=use_tqdm)
        ranked = [
            RankedDocument(i, documents[i], nan if one.error else one.outputs.score, one.error)
            for i, one in enumerate(scores)
        ]
        ranked.sort(key=lambda one: (one.error is not None, -one.relevance_score if one.error is None else 0.0))
        return ranked if top_n is None else ranked[:top_n]

    def _crossed(self, left: Sequence[Prompt], right: Sequence[Prompt], bar: Bar) -> list[ScoringRequestOutput]:
        """Scores of pairs that a cross-encoder reads as one text."""
        if len(self.spec.pooler.labels) != 1:
            raise UsageError(f"this model has {len(self.spec.pooler.labels)} classes: a score is of one; use classify")
        if not all(isinstance(one, str) for one in (*left, *right)):
            raise UsageError("pairs of texts are read as one: give strings")
        ids = encode_pairs(self.tokenizer.encode, list(zip(map(str, left), map(str, right), strict=True)))
        found = self._vectors(ids, self._asked(None, "classify"), bar, None)
        return [ScoringRequestOutput(*one.of(lambda vector: ScoringOutput(vector[0]))) for one in found]

    def _asked(self, given: Asked, task: str) -> list[PoolingParams]:
        """What a call asks for: one for all prompts, or one for each. Raises InvalidRequest where the model does not
        give it."""
        each = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        return [self._asked_once(one, task) for one in each]

    def _asked_once(self, given: One, task: str) -> PoolingParams:
        asked = PoolingParams.of({"task": task} if given is None else given)
        if isinstance(given, Mapping) and "task" not in given:
            asked = PoolingParams.of({**given, "task": task})
        if asked.task != task:
            raise UsageError(f"pooling_params: task={asked.task!r} in a call for {task!r}")
        self.spec.pooler.check(asked)
        return asked

    def _vectors(self, prompts: Prompts, asked: list[PoolingParams], bar: Bar, cut: int | None) -> Iterator[_Pooled]:
        """What came of each prompt, in order."""
        prompts = as_prompts(prompts)
        if len(asked) not in (1, len(prompts)):
            raise UsageError(f"{len(prompts)} prompts but {len(asked)} pooling_params: give one, or one for each")
        params = [SamplingParams(pooling_params=one, truncate_prompt_tokens=cut) for one in asked]
        batch = self.intake.take(prompts, params[0] if len(asked) == 1 else params)
        found = {
            int(one.request_id): _Pooled(one.request_id, one.prompt_token_ids, None, one.error) for one in batch.refused
        }
        with closing(self._run_batch(batch)) as rows, progress_line(bar, len(prompts), self) as tell:
            for row, ids, output in rows:
                found[row] = _Pooled(str(row), ids, output.vector, output.error)
                tell()
        return (found[i] for i in range(len(prompts)))


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The vector of a prompt, or why it has none."""

    request_id: str
    token_ids: list[int]
    vector: tuple[float, ...] | None
    error: RowError | None

    def of(self, make: Callable[[list[float]], Any]) -> tuple[str, Any, list[int], bool, RowError | None]:
        """The fields of an output whose own part is made of the vector."""
        if self.vector is None:
            error = self.error or NOTHING
            return self.request_id, NoVector(self.request_id, error), self.token_ids, True, error
        return self.request_id, make([*self.vector]), self.token_ids, True, None


def _likeliest(labels: Sequence[str], vector: Sequence[float]) -> str:
    return labels[max(range(len(vector)), key=vector.__getitem__)]


def _scored(row: int, one: _Pooled, other: _Pooled) -> ScoringRequestOutput:
    """The cosine of two embeddings."""
    ids = [*one.token_ids, *other.token_ids]
    if one.vector is None or other.vector is None:
        error = one.error or other.error or NOTHING
        return ScoringRequestOutput(str(row), NoVector(str(row), error), ids, True, error)
    return ScoringRequestOutput(str(row), ScoringOutput(cosine(one.vector, other.vector)), ids)
