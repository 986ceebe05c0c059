"""Vectors as callers see them, in vLLM's shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, NoReturn, TypeVar

from umbel.errors import RowFailed
from umbel.ir.request import RowError

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class PoolingOutput:
    """A vector as it is."""

    data: list[float]


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """The embedding of a prompt."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """How many numbers it has."""
        return len(self.embedding)


@dataclass(frozen=True, slots=True)
class ClassificationOutput:
    """The probabilities of the classes, in the order of the model's labels; `label` names the likeliest."""

    probs: list[float]
    label: str = ""

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.probs)


@dataclass(frozen=True, slots=True)
class ScoringOutput:
    """How well two texts go together."""

    score: float


@dataclass(frozen=True, slots=True)
class NoVector:
    """The output of a prompt that failed: a look at what it would hold says why."""

    request_id: str
    error: RowError

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RowFailed(
            f"prompt {self.request_id} has no {name}: {self.error.code}: {self.error.message}; look at .error first"
        )


@dataclass(frozen=True, slots=True)
class PoolingRequestOutput(Generic[Told]):
    """What came of one prompt; `error` is set where it could not be run."""

    request_id: str
    outputs: Told
    prompt_token_ids: list[int]
    finished: bool = True
    error: RowError | None = None
    num_cached_tokens: ClassVar[None] = None


class EmbeddingRequestOutput(PoolingRequestOutput[EmbeddingOutput]):
    """`outputs.embedding` is the prompt's vector."""


class ClassificationRequestOutput(PoolingRequestOutput[ClassificationOutput]):
    """`outputs.probs` are the probabilities of the prompt's classes."""


class ScoringRequestOutput(PoolingRequestOutput[ScoringOutput]):
    """`outputs.score` says how well two texts go together."""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document in the order of a ranking: its place `index` among those given, and how well it goes with the query.
    `error` is set, and the score NaN, where it could not be read."""

    index: int
    document: str
    relevance_score: float
    error: RowError | None = None
