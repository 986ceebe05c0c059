"""A model in a directory as transformers saves it: small JSON files, and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.ir.spec import ModelSpec
from umbel.models.checkpoint import has_other_head, lacks_head
from umbel.models.coded_config import coded_format
from umbel.models.config_file import MAX_CONFIG_BYTES, Config, naming, read_file, read_json
from umbel.models.notes import file_notes
from umbel.models.quant_files import check_quant_files
from umbel.models.sources.base import StoredTensors


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that holds config.json and *.safetensors."""

    path: Path

    def place(self, name: str) -> Path:
        """The file itself."""
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether it has a file of this name."""
        return (self.path / name).exists()

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """The bytes of a file, None where there is none of this name. Raises ModelError."""
        return read_file(self.path / name, max_bytes)

    def read_json(self, name: str, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any] | None:
        """The JSON object in a file, None where there is none of this name. Raises ModelError."""
        return read_json(self.path, name, max_bytes)

    def templates(self) -> Mapping[str, Path]:
        """`chat_template.jinja` as "default", and those of `additional_chat_templates` by their own names."""
        more = sorted((self.path / "additional_chat_templates").glob("*.jinja"))
        files = [self.path / "chat_template.jinja", *more]
        return {path.stem.replace("chat_template", "default"): path for path in files if path.is_file()}

    def notes(self, config: Config) -> list[str]:
        """Files that are not read, and weights that are decoded. Raises ModelError for what contradicts config.json."""
        form = coded_format(config)
        return check_quant_files(self.path, config) + file_notes(self.path) + (form.notes if form else [])

    def has_other_head(self, spec: ModelSpec) -> bool:
        """Whether its files hold a head that is not the embedding."""
        return has_other_head(self.path, spec)

    def lacks_head(self, spec: ModelSpec) -> bool:
        """Whether its files hold an embedding and no head."""
        return lacks_head(self.path, spec)

    def tensors(self, spec: ModelSpec) -> StoredTensors:
        """The tensors of its safetensors files. Raises ModelError."""
        from umbel.models.sources.coded import CodedTensors  # here, as they need torch
        from umbel.models.sources.mxfp4 import BLOCKS, Mxfp4Tensors
        from umbel.models.sources.safetensors import SafetensorsFiles

        files, form = SafetensorsFiles(self.path, spec), coded_format(self.read_json("config.json") or {})
        if any(name.endswith(BLOCKS) for name in files.entries):
            return Mxfp4Tensors(files)
        if form is None:
            return files
        with naming(self.path):
            return CodedTensors(files, form)
