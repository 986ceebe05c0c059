"""Modules of the tests that the checks use too, loaded by their files: other packages are called `tests` as well."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parents[2] / "tests"


def load_test_module(path: str) -> ModuleType:
    """The module in a file below `tests/`, as in `oracle/hf.py`."""
    name = f"umbel_tests_{path.removesuffix('.py').replace('/', '_')}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, TESTS / path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{TESTS / path} cannot be loaded")
        module = sys.modules[name] = module_from_spec(spec)  # before it runs: its records look themselves up
        spec.loader.exec_module(module)
    return sys.modules[name]
