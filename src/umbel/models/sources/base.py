"""The seam of checkpoints: what a model on disk gives, whatever it is kept in. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from umbel.ir.spec import ModelSpec
from umbel.models.config_file import MAX_CONFIG_BYTES, Config

if TYPE_CHECKING:
    from torch import Tensor


class StoredTensor(Protocol):
    """What is known of a tensor before it is read."""

    @property
    def dtype(self) -> str:
        """Its type as safetensors spells it ("BF16"); that of what is decoded when it is read is "F32"."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as transformers has it."""
        ...


class StoredTensors(Protocol):
    """The tensors of a checkpoint, by the names that transformers gives them."""

    @property
    def entries(self) -> Mapping[str, StoredTensor]:
        """All of them."""
        ...

    def read_into(self, name: str, whole: Tensor) -> None:
        """Fill a tensor of the same shape, in any type and on any device. Raises ModelError for numbers that are not
        finite, and for a file that was changed since it was opened."""
        ...


class ModelSource(Protocol):
    """A model on disk, as the directory in which transformers would keep it."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    def place(self, name: str) -> Path:
        """What messages call one of its files."""
        ...

    def has(self, name: str) -> bool:
        """Whether it has a file of this name."""
        ...

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """The bytes of one of its files, None where there is none of this name. Raises ModelError."""
        ...

    def read_json(self, name: str, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any] | None:
        """The JSON object in one of its files, None where there is none of this name. Raises ModelError."""
        ...

    def templates(self) -> Mapping[str, Path]:
        """Files of chat templates, by the names of the templates."""
        ...

    def notes(self, config: Config) -> list[str]:
        """Texts for the user: what lies beside config.json and is not obeyed. Raises ModelError for contradictions."""
        ...

    def has_other_head(self, spec: ModelSpec) -> bool:
        """Whether it holds a head that is not its embedding. False where its tensors cannot be read: loading says
        why."""
        ...

    def lacks_head(self, spec: ModelSpec) -> bool:
        """Whether it holds an embedding and no head. False where its tensors cannot be read."""
        ...

    def tensors(self, spec: ModelSpec) -> StoredTensors:
        """Its tensors, those of a model of this shape; imports torch. Raises ModelError."""
        ...
