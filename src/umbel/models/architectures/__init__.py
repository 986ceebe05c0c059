"""The families of models that the decoder computes: rows of data, a file for each group of relatives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from umbel.models.architectures import llama, mixtures
from umbel.models.family import Family

FAMILIES: Mapping[str, Family] = MappingProxyType({**llama.ROWS, **mixtures.ROWS})
"""By `model_type`."""
