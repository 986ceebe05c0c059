"""When an answer is a loop that is to end: a pattern of tokens that has come again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umbel.ir.limits import check_int, refuse, shown

NAME = "repetition_detection"
MAX_PATTERN = 1_024
MAX_COUNT = 1_024
_FIELDS = ("max_pattern_size", "min_pattern_size", "min_count")


@dataclass(frozen=True, slots=True)
class RepetitionDetection:
    """vLLM's parameters: an answer ends once its last tokens are `min_count` copies of one pattern, which has from
    `min_pattern_size` (0: 1) to `max_pattern_size` tokens."""

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    @classmethod
    def of(cls, asked: object) -> RepetitionDetection | None:
        """From an object of the fields, or a record with them, as vLLM's is; None where the largest pattern has no
        tokens, which asks for nothing. Raises InvalidRequest."""
        if isinstance(asked, Mapping):
            if unknown := sorted(map(str, asked.keys() - set(_FIELDS))):
                refuse("unknown_parameter", NAME, f"{NAME} has {shown(unknown[0])}: it has {', '.join(_FIELDS)}")
            given = dict(asked)
        elif all(hasattr(asked, name) for name in _FIELDS):
            given = {name: getattr(asked, name) for name in _FIELDS}
        else:
            refuse("invalid_type", NAME, f"{NAME}={shown(asked)}: must be an object with {', '.join(_FIELDS)}")
        most = check_int(f"{NAME}.max_pattern_size", given.get("max_pattern_size", 0), 0, MAX_PATTERN)
        least = check_int(f"{NAME}.min_pattern_size", given.get("min_pattern_size", 0), 0, most)
        if most == 0:
            return None
        return cls(most, max(least, 1), check_int(f"{NAME}.min_count", given.get("min_count", 0), 2, MAX_COUNT))

    def found_in(self, tokens: Sequence[int]) -> bool:
        """Whether an answer ends in a loop."""
        for size in range(self.min_pattern_size, self.max_pattern_size + 1):
            reach = size * (self.min_count - 1)
            if reach + size > len(tokens):
                return False
            # Equal to what stands one pattern earlier, all along: copies of one pattern.
            if tokens[-1] == tokens[-1 - size] and tokens[-reach:] == tokens[-reach - size : -size]:
                return True
        return False
