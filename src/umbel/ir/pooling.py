"""Vectors instead of tokens: what a row asks for, and what a model gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from umbel.errors import nearest
from umbel.ir.limits import MAX_INT, check_bool, check_choice, check_int, refuse, shown

TASKS = ("embed", "classify")
POOLING_TYPES = ("LAST", "MEAN")
OF_PROMPTS = frozenset({"truncate_prompt_tokens", "truncation", "lora", "techniques"})
"""Fields of SamplingParams that are about the prompt and the model, not about the answer."""
Vector = NDArray[np.float32]
LEAST = 1e-12  # that a vector is divided by, as in torch's normalize


@dataclass(frozen=True, slots=True)
class PoolingParams:
    """What a row wants of its prompt instead of an answer, by vLLM's names.

    `task`: "embed", the last hidden states pooled to one vector, or "classify", the probabilities of the classes of a
    model with a head for them. `pooling_type`: "LAST", the state of the last token, or "MEAN", of all.
    `use_activation`: whether embeddings are made of length 1, and numbers of classes probabilities. `dimensions`: how
    many of the first numbers of an embedding are wanted (Matryoshka, 2205.13147). What is None is as the model's files
    say.

    Raises InvalidRequest for a field of another type, or beyond its limits.
    """

    task: str = "embed"
    pooling_type: str | None = None
    use_activation: bool | None = None
    dimensions: int | None = None

    def __post_init__(self) -> None:
        check_choice("task", self.task, TASKS)
        if self.pooling_type is not None:
            if self.pooling_type in ("CLS", "ALL", "STEP"):
                other = "a causal model's first token has seen no other; give LAST or MEAN"
                refuse("unsupported_parameter", "pooling_type", f"pooling_type={shown(self.pooling_type)}: {other}")
            check_choice("pooling_type", self.pooling_type, POOLING_TYPES)
        if self.use_activation is not None:
            check_bool("use_activation", self.use_activation)
        if self.dimensions is not None:
            check_int("dimensions", self.dimensions, 1, MAX_INT)

    @classmethod
    def of(cls, given: Any) -> PoolingParams:
        """The record itself, or one made from an object with its fields. Raises InvalidRequest."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            refuse("invalid_type", "pooling_params", f"pooling_params={shown(given)}: must be an object")
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                refuse("unknown_parameter", "pooling_params", f"pooling_params: {shown(name)}{nearest(name, known)}")
        return cls(**{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Pooler:
    """What a model gives beside tokens, or instead of them.

    `runner`: what it is for if no one says more, as vLLM's option of this name: "generate" or "pooling". `has_head`:
    it has the head that tokens are drawn from. `pooling_type`, `normalize`: how its files say that last hidden states
    become an embedding. `why_not`: why they do not, None where they do. `dimensions`: lengths that embeddings may be
    cut to, None: not to any, empty: to every one. `labels`: the classes of its head for these, in order, () where it
    has none; `activation`: what makes their numbers probabilities; `pad`: the token that is no part of a text at its
    end, where a head for classes reads; `hidden`: how many numbers a hidden state has.
    """

    runner: Literal["generate", "pooling"] = "generate"
    has_head: bool = True
    pooling_type: str = "LAST"
    normalize: bool = True
    why_not: str | None = None
    dimensions: tuple[int, ...] | None = None
    labels: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    pad: int | None = None
    hidden: int = MAX_INT

    @property
    def task(self) -> str:
        """What vectors of this model are for."""
        return "classify" if self.labels else "embed"

    def check(self, asked: PoolingParams | None) -> None:
        """Raise InvalidRequest where the model does not give what a row asks for: an answer (None), or a vector."""
        if asked is None:
            if not self.has_head:
                what = "classify (of a job: --task classify)" if self.labels else "embed (of a job: --task embed)"
                refuse("unsupported_parameter", "task", f"this model has no head that writes tokens: use {what}")
            return
        if asked.task == "classify" and not self.labels:
            way = "; choices gives each prompt the likeliest of some labels" if self.has_head else ""
            refuse("unsupported_parameter", "task", f"task='classify': this model has no head for classes{way}")
        if asked.task == "embed" and (self.labels or self.why_not):
            why = self.why_not or "this model's head gives classes: use classify, or the model without that head"
            refuse("unsupported_parameter", "task", f"task='embed': {why}")
        if asked.task == "classify" and asked.pooling_type == "MEAN":
            refuse(
                "unsupported_parameter", "pooling_type", "pooling_type='MEAN': heads for classes read the last token"
            )
        if asked.dimensions is not None:
            self._check_dimensions(asked)

    def _check_dimensions(self, asked: PoolingParams) -> None:
        known, count = self.dimensions, asked.dimensions or 0
        if asked.task != "embed" or known is None:
            why = "the model's config.json does not say that its embeddings may be cut (is_matryoshka)"
            refuse("unsupported_parameter", "dimensions", f"dimensions={count}: {why}; leave it out")
        if count > self.hidden or (known and count not in known):
            what = f"one of {', '.join(map(str, known))}" if known else f"at most {self.hidden}"
            refuse("invalid_value", "dimensions", f"dimensions={count}: must be {what}")

    def read(self, ids: Sequence[int]) -> Sequence[int]:
        """The token ids of a prompt as far as they are read: up to the last that is no padding, as in transformers."""
        end = len(ids)
        while end > 1 and self.pad is not None and ids[end - 1] == self.pad:
            end -= 1
        return ids if end == len(ids) else ids[:end]

    def is_mean(self, asked: PoolingParams) -> bool:
        """Whether a row wants the mean of all states."""
        return asked.task == "embed" and (asked.pooling_type or self.pooling_type) == "MEAN"

    def finished(self, pooled: Vector, asked: PoolingParams) -> tuple[float, ...]:
        """What a row gets, made from its pooled states or the numbers of its classes."""
        active = self.normalize if asked.use_activation is None else asked.use_activation
        if asked.task == "classify":
            active = asked.use_activation is not False
            return tuple((_ACTIVATIONS[self.activation](pooled) if active else pooled).tolist())
        cut = pooled[: asked.dimensions]
        return tuple((_unit(cut) if active else cut).tolist())


def without_answer(params: Any) -> None:
    """Of the SamplingParams of a row that wants a vector, leave all fields that say how to answer at what asks for
    nothing, so that rows that want the same are equal. Raises InvalidRequest for those that ask for something of an
    answer."""
    if params.pooling_params is None:
        return
    for name, nothing in (("n", 1), ("logprobs", None), ("prompt_logprobs", None), ("structured_outputs", None)):
        if getattr(params, name) != nothing:
            refuse("invalid_value", name, f"{name} with pooling_params: a vector is wanted, and no text is written")
    usual = {each.name: each.default for each in fields(params) if each.name not in OF_PROMPTS}
    asked = {"pooling_params": PoolingParams.of(params.pooling_params), "temperature": 0.0, "max_tokens": 0}
    for name, value in (usual | asked).items():
        object.__setattr__(params, name, value)  # frozen for everyone else


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors, 0.0 where one has no length."""
    a, b = np.array(one, np.float64), np.array(other, np.float64)
    length = float(np.sqrt((a * a).sum()) * np.sqrt((b * b).sum()))
    return float((a * b).sum()) / length if length else 0.0


WRITER = Pooler()
"""A model that writes tokens, of whose files nothing else is known."""


def _unit(vector: Vector) -> Vector:
    wide = vector.astype(np.float64)
    return np.asarray(wide / max(float(np.sqrt((wide * wide).sum())), LEAST), np.float32)


def _softmax(numbers: Vector) -> Vector:
    wide = np.exp(numbers.astype(np.float64) - float(numbers.max()))
    return np.asarray(wide / wide.sum(), np.float32)


def _sigmoid(numbers: Vector) -> Vector:
    return np.asarray(1.0 / (1.0 + np.exp(-numbers.astype(np.float64))), np.float32)


def _as_it_is(numbers: Vector) -> Vector:
    return numbers


_ACTIVATIONS: Mapping[str, Callable[[Vector], Vector]] = MappingProxyType(
    {"softmax": _softmax, "sigmoid": _sigmoid, "none": _as_it_is}
)
