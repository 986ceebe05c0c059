"""The decoder of a model that runs through transformers: loaded, given our products, and compared with itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from umbel.errors import ModelError, UmbelError
from umbel.ir.spec import ModelSpec
from umbel.linear.base import LinearMethod
from umbel.models.config_file import shorten
from umbel.models.hosted.crosscheck import check_equal, own_logits
from umbel.models.hosted.decoder import HostedDecoder
from umbel.models.hosted.loading import load_module, make_module
from umbel.models.hosted.spec import parts_of
from umbel.models.sources.find import source_at


def build_hosted(
    directory: Path, spec: ModelSpec, dtype: torch.dtype, device: torch.device, method: LinearMethod, seed: int | None
) -> HostedDecoder:
    """The decoder of the checkpoint in `directory`, or with random weights from a `seed`. Raises ModelError where its
    tensors are not those of its config, and where it does not give its own logits with our attention."""
    model_class, config = parts_of(source_at(directory).read_json("config.json") or {})
    if seed is None:
        module = load_module(directory, spec, model_class, config, dtype)
    else:
        module = make_module(model_class, config, dtype, seed)
    with _named(spec):
        expected = own_logits(module, spec)
        decoder = HostedDecoder(spec, module, device, method)
        check_equal(decoder, expected)
    return decoder


@contextmanager
def _named(spec: ModelSpec) -> Iterator[None]:
    """What a module cannot do on packed rows, or by itself, as a ModelError: modules fail in as many ways as there are
    authors."""
    try:
        yield
    except (UmbelError, MemoryError):
        raise
    except Exception as error:
        why = shorten(f"{type(error).__name__}: {error}")
        raise ModelError(f"{spec.family!r} models do not run on packed rows with our attention ({why})") from error
