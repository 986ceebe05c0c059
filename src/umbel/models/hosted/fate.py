"""What becomes of a model type: our own layers compute it, transformers does with our attention, or it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from umbel.errors import ModelError
from umbel.models.families import FAMILIES
from umbel.models.hosted.classes import CAUSAL, class_of


@dataclass(frozen=True, slots=True)
class Fate:
    """How models of a type run; `reason` says why they are refused, or names the class of transformers."""

    way: Literal["native", "transformers", "refused"]
    reason: str = ""


def model_types() -> tuple[str, ...]:
    """Every causal decoder of the installed transformers, and every family of ours."""
    return tuple(sorted({*CAUSAL, *FAMILIES}))


def fate_of(model_type: str) -> Fate:
    """What becomes of the models of a type, as far as it does not depend on their config."""
    if model_type in FAMILIES:
        return Fate("native")
    try:
        return Fate("transformers", class_of(model_type).__name__)
    except ModelError as error:
        return Fate("refused", str(error))
