"""The form of answers as a command line asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umbel.errors import InvalidRequest, UsageError

if TYPE_CHECKING:
    from umbel.ir.structured import StructuredOutputsParams


def form_of(json_schema: Path | None, regex: str | None, grammar: Path | None) -> StructuredOutputsParams | None:
    """What answers are held to, None where nothing is asked for. Raises UsageError for a form that cannot be followed,
    a file that cannot be read, and two forms."""
    asked = {"--json-schema": json_schema, "--regex": regex, "--grammar": grammar}
    given = [(option, value) for option, value in asked.items() if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise UsageError(f"{' and '.join(option for option, _ in given)}: an answer has one form, give one of them")
    ((option, value),) = given
    from umbel.ir.structured import StructuredOutputsParams

    name = {"--json-schema": "json", "--regex": "regex", "--grammar": "grammar"}[option]
    try:
        return StructuredOutputsParams(**{name: value.read_text("utf-8") if isinstance(value, Path) else value})
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {value}: cannot be read ({error})") from None
    except InvalidRequest as error:
        raise UsageError(f"{option}: {error.message}") from None
