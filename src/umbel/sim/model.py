"""The model of a simulation: a directory, a config.json, or the name of a shape that needs no files."""

from __future__ import annotations

from pathlib import Path

from umbel.errors import ModelError, nearest
from umbel.ir.spec import ModelSpec
from umbel.models.families import read_spec, resolve_model
from umbel.sim.shapes import SHAPES


def find_model(name: str, model_impl: str = "auto", generation_config: str = "auto") -> tuple[ModelSpec, Path | None]:
    """The spec of a model, and its directory (None for a shape of `SHAPES`); raises ModelError when there is none."""
    path = Path(name).expanduser()
    if name in SHAPES and not path.is_dir():
        return SHAPES[name], None
    if path.is_file() and path.name == "config.json":
        return read_spec(path.parent, model_impl, generation_config), path.parent
    try:
        directory = resolve_model(name)
    except ModelError as error:
        shapes = f"shapes that need no files: {', '.join(SHAPES)}{nearest(name, SHAPES)}"
        raise ModelError(f"{error}; {shapes}") from None
    return read_spec(directory, model_impl, generation_config), directory
