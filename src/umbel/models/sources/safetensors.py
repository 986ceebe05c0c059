"""The tensors of a model's safetensors files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.models.checkpoint import stored_tensors
from umbel.models.sources.finite import check_finite
from umbel.models.tensor_file import DTYPES, TensorFile


class SafetensorsFiles:
    """Every tensor of a directory, read from its file when it is asked for. Making one raises ModelError for files that
    are missing, damaged or not safetensors."""

    def __init__(self, directory: Path, spec: ModelSpec):
        self.entries = stored_tensors(directory, spec)
        self._files = {path: TensorFile(path) for path in {entry.path for entry in self.entries.values()}}

    def read_into(self, name: str, whole: Tensor) -> None:
        """Fill a tensor of its shape. Raises ModelError for numbers that are not finite and for files that changed."""
        entry = self.entries[name]
        file = self._files[entry.path]
        if whole.dtype == DTYPES[entry.dtype] and whole.device.type == "cpu":
            file.read_into(entry, whole)
            check_finite(name, whole)
            return
        flat, at = whole.view(-1), 0
        for block in file.blocks(entry):
            check_finite(name, block)
            flat[at : at + len(block)].copy_(block)
            at += len(block)
