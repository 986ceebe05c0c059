"""What a model's generation_config.json wants its answers to be sampled by: defaults of rows that do not say it."""

from __future__ import annotations

from typing import Any

from umbel.errors import InvalidRequest, ModelError
from umbel.ir.params import SamplingParams
from umbel.models.config_file import Config, shorten
from umbel.models.known_keys import GENERATION_APPLIED, NAMED_GREEDY, NAMED_LENGTH, NAMED_SAMPLING

Defaults = tuple[tuple[str, float], ...]
SKIPPED = ("vllm", "none")  # values of the option generation_config that leave the file out
_NEUTRAL = NAMED_GREEDY | NAMED_SAMPLING | NAMED_LENGTH


def sampling_defaults(stated: Config, name: str) -> Defaults:
    """The sampling fields that the file `name` sets, under our names; vLLM applies the same ones. Raises ModelError for
    a value that no row may have."""
    found: dict[str, Any] = {
        ours: stated[key]
        for key, ours in GENERATION_APPLIED.items()
        if key in stated and stated[key] not in _NEUTRAL[key]
    }
    try:
        params = SamplingParams(**found)
    except InvalidRequest as error:
        shown = shorten({key: stated[key] for key, ours in GENERATION_APPLIED.items() if ours in found})
        advice = "correct the file, or leave it out with generation_config='vllm' (--generation-config vllm)"
        raise ModelError(f"{name}: {error.message} ({shown}); {advice}") from None
    return tuple((ours, getattr(params, ours)) for ours in found)


def defaults_note(defaults: Defaults, name: str) -> str:
    """A note that says them."""
    said = ", ".join(f"{ours} {value:g}" for ours, value in defaults)
    return f"{said} from {name}, for rows that do not set them; --generation-config vllm leaves it out"
