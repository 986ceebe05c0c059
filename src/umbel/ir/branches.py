"""What a row may have scored behind its prompt instead of an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Branches:
    """Continuations of a prompt, as texts or token ids. With `chooses` they are choices, of which the most likely is
    wanted; `calibration_prompt` is then a prompt without content, behind which all of them count as equally likely."""

    continuations: tuple[str | tuple[int, ...], ...]
    chooses: bool = False
    calibration_prompt: str | None = None

    @property
    def n_rows(self) -> int:
        """Rows of a workload that it takes: one for each continuation, and one behind the calibration prompt."""
        return len(self.continuations) * (1 if self.calibration_prompt is None else 2)

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices as texts."""
        return tuple(one for one in self.continuations if isinstance(one, str))
