"""What replicas of a model are asked through: what is read of its directory without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from umbel.config import EngineConfig
from umbel.engine.build import load_tokenizer
from umbel.errors import UsageError
from umbel.ir.row_techniques import RowTechniques
from umbel.ir.spec import ModelSpec
from umbel.models.adapters.modules import adapted_spec
from umbel.models.families import read_spec, resolve_model
from umbel.plan.for_rows import techniques_of
from umbel.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The parts of a model directory that are read without its weights, and what rows may take a part of. Implements
    `TokenizedModel`."""

    directory: Path
    spec: ModelSpec
    tokenizer: Tokenizer | None
    techniques: RowTechniques

    @classmethod
    def of(cls, config: EngineConfig) -> ModelFiles:
        """Read what is to be known of the model that was asked for."""
        directory = resolve_model(config.model)
        spec = adapted_spec(read_spec(directory, config.model_impl, config.generation_config), config)
        return cls(directory, spec, load_tokenizer(directory, spec), techniques_of(config))

    def add_adapter(self, name: str, directory: str) -> None:
        """Raises UsageError: other processes have the model."""
        raise UsageError(f"replicas take adapters when they are made: lora={{{name!r}: {directory!r}}}")
