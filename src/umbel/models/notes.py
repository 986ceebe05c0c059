"""Texts for the user: what the files of a model directory say that would change answers elsewhere and is not obeyed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from umbel.models.config_file import Config, ids_of, shorten
from umbel.models.known_keys import (
    GENERATION_OBEYED,
    GENERATION_WITHOUT_EFFECT,
    NAMED_GREEDY,
    NAMED_LENGTH,
    NAMED_SAMPLING,
    OBEYED,
    OF_VECTORS,
    REFUSED,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_IN,
)

ADAPTERS = ("adapter_config.json",)
SHOWN = 12  # keys that one note lists
GENERATION_LISTS = (GENERATION_OBEYED, NAMED_GREEDY, NAMED_SAMPLING, NAMED_LENGTH, GENERATION_WITHOUT_EFFECT)
SAYS_NOTHING: tuple[object, ...] = (None, False, "", [], {})


def config_notes(config: Config, kind: str, obeyed: Collection[str], context: int) -> list[str]:
    """One note with the keys of config.json that models of this kind do not use; none where all are used. `obeyed`:
    those that they read beside what all do."""
    known = (
        OBEYED.union(obeyed) | REFUSED.keys() | WITHOUT_EFFECT | OF_VECTORS | WITHOUT_EFFECT_IN.get(kind, frozenset())
    )
    old_style = NAMED_GREEDY.keys() | NAMED_SAMPLING.keys() | NAMED_LENGTH.keys()  # see generation_notes
    spare = {
        key: value
        for key, value in config.items()
        if key not in known and key not in old_style and value not in SAYS_NOTHING and not _is_wide(key, value, context)
    }
    return [f"config.json: not used by {kind!r} models: {_listed(spare)}"] if spare else []


def generation_source(config: Config, generation: Config | None) -> tuple[str, Config]:
    """Where the model's way to generate stands: in generation_config.json, or in config.json where there is no such
    file, as for transformers and vLLM."""
    return ("config.json", config) if generation is None else ("generation_config.json", generation)


def generation_notes(
    config: Config, generation: Config | None, context: int, ends: Collection[int], applied: Collection[str] = ()
) -> list[str]:
    """What is not applied of the model's way to generate; `applied` are keys that are. `ends` are the end tokens of
    config.json."""
    name, stated = generation_source(config, generation)
    stated = {key: value for key, value in stated.items() if key not in applied}
    found = []
    if greedy := _said(stated, NAMED_GREEDY):
        found.append(f"{name}: {greedy} not applied: greedy answers differ from transformers' generate()")
    if sampling := _said(stated, NAMED_SAMPLING):
        tail = "rows that set none are sampled at temperature 1 over the whole vocabulary"
        found.append(f"{name}: {sampling} not applied: {tail}")
    short = {key: value for key, value in stated.items() if not _is_wide(key, value, context)}
    if length := _said(short, NAMED_LENGTH):
        tail = "rows that set no max_tokens may run to the context's end, and n is 1"
        found.append(f"{name}: {length} not applied: {tail}")
    return found + _end_notes(generation, ends)


def file_notes(directory: Path) -> list[str]:
    """What lies in a model directory that transformers takes into account and we do not."""
    return [f"{name} is not read: adapters are not applied" for name in ADAPTERS if (directory / name).exists()]


def _end_notes(generation: Config | None, ends: Collection[int]) -> list[str]:
    """What is worth knowing where there is a generation_config.json: keys that we do not know, ends of config.json."""
    if generation is None:
        return []
    known = frozenset().union(*GENERATION_LISTS)
    spare = {key: value for key, value in generation.items() if key not in known and value not in SAYS_NOTHING}
    unused = [f"generation_config.json: not used: {_listed(spare)}"] if spare else []
    more = sorted(set(ends) - set(ids_of(generation, "eos_token_id")))
    if more:
        named = ", ".join(map(str, more))
        unused.append(
            f"config.json: eos_token_id {named} ends answers too; transformers' generate() takes generation_config.json"
        )
    return unused


def _said(stated: Config, neutral: Mapping[str, tuple[object, ...]]) -> str:
    """The keys that say something, as the subject of a sentence; "" where none does."""
    spare = {key: stated[key] for key in neutral if key in stated and stated[key] not in neutral[key]}
    return _listed(spare) + (" is" if len(spare) == 1 else " are") if spare else ""


def _listed(values: Mapping[str, object]) -> str:
    shown = [f"{_plain(key)}={shorten(value)}" for key, value in list(values.items())[:SHOWN]]
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(shown) + more


def _plain(key: str) -> str:
    """A key as it stands in a message: as it is, or quoted where it is long or has characters that are not printed."""
    return key if key.isprintable() and len(key) <= 60 else shorten(key)


def _is_wide(key: str, value: object, context: int) -> bool:
    """Whether a limit of tokens lies beyond the context, so that it changes nothing."""
    return key in ("max_length", "sliding_window") and isinstance(value, int) and value >= context
