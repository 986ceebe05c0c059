"""Writes docs/model_keys.md from the lists of known keys: `python -m tests.models.keys_doc`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.models import key_cases
from umbel.models import known_keys
from umbel.models.architectures import FAMILIES

DOC = Path(__file__).parents[2] / "docs" / "model_keys.md"
HEAD = """# What becomes of a key

Made from `src/umbel/models/known_keys.py` and the rows of `src/umbel/models/architectures/` by `python -m
tests.models.keys_doc`; a test compares the lists with the configuration classes of the installed transformers, and
another one this page with the lists. Tests are those of `tests/models/test_model_keys.py`; `test_keys` is of
`tests/models/test_zoo.py`, `test_keys_of_mixtures` of `tests/oracle/test_mixtures.py`.

*Obeyed*: read, and refused in values that are not supported. *Refused*: a model with a value that says something is not
run. *Named*: not applied; a note says so in `umbel plan`, in `umbel run` and in the summary. A key that is in no row
is named too. *No effect*: changes no answer.
"""
ALL = "all"


def document() -> str:
    """The whole page."""
    tables = {
        "config.json": list(_config_rows()),
        "Rotary settings (`rope_scaling`, `rope_parameters`)": list(_rope_rows()),
        "generation_config.json": list(_generation_rows()),
    }
    text = HEAD
    for title, rows in tables.items():
        text += f"\n## {title}\n\n| key | families | what becomes of it | test |\n|---|---|---|---|\n"
        text += "".join(f"| `{key}` | {where} | {what} | `{test}` |\n" for key, where, what, test in sorted(rows))
    return text


def _config_rows() -> Iterable[tuple[str, str, str, str]]:
    families: dict[str, list[str]] = {}
    for family, row in FAMILIES.items():
        for key in row.obeyed:
            families.setdefault(key, []).append(family)
    for key in known_keys.OBEYED | families.keys():
        yield key, ", ".join(families.get(key, [ALL])), "obeyed", _obeyed_test(key)
    for key in known_keys.REFUSED:
        yield key, ALL, "refused", "test_refused"
    for key in known_keys.WITHOUT_EFFECT:
        yield key, ALL, "no effect", "test_without_effect"
    for family, keys in known_keys.WITHOUT_EFFECT_IN.items():
        for key in keys:
            yield key, family, "no effect", "test_without_effect_in_a_family"
    for key in known_keys.NAMED:
        yield key, ALL, "named", "test_named"


def _obeyed_test(key: str) -> str:
    if key in key_cases.COMPUTED:
        return "test_computed"
    if key in key_cases.OF_ZOO:
        return "test_keys"
    if key in key_cases.OF_MIXTURES:
        return "test_keys_of_mixtures"
    return "test_read" if key in key_cases.READ else "test_one_value"


def _rope_rows() -> Iterable[tuple[str, str, str, str]]:
    for key in frozenset().union(*known_keys.ROPE_KEYS.values()):
        kinds = [kind for kind, keys in known_keys.ROPE_KEYS.items() if key in keys]
        yield key, ALL, f"obeyed with {', '.join(kinds)}; else named", "test_rotary_settings"
    for key in known_keys.ROPE_KEYS_NAMED:
        yield key, ALL, "named; refused with its own rope_type", "test_rotary_keys_that_are_not_used"


def _generation_rows() -> Iterable[tuple[str, str, str, str]]:
    for key in known_keys.GENERATION_OBEYED:
        yield key, ALL, "obeyed, beside that of config.json", "test_ends_of_an_answer"
    for key in (*known_keys.NAMED_GREEDY, *known_keys.NAMED_SAMPLING, *known_keys.NAMED_LENGTH):
        applied = "default of rows that do not set it; named where the file is left out"
        yield key, ALL, applied if key in known_keys.GENERATION_APPLIED else "named", "test_generation_keys"
    for key in known_keys.GENERATION_WITHOUT_EFFECT:
        yield key, ALL, "no effect", "test_generation_keys_without_effect"


if __name__ == "__main__":
    DOC.write_text(document(), encoding="utf-8")
