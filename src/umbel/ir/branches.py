"""What a row may have scored behind its prompt instead of an answer."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Branches:
    """Continuations of a prompt, as texts or token ids. With `chooses` they are choices, of which the most likely is
    wanted; `calibration_prompt` is then a prompt without content, behind which all of them count as equally likely.
    With `inputs` the row has no prompt of its own, and their vectors are wanted."""

    continuations: tuple[str | tuple[int, ...], ...]
    chooses: bool = False
    calibration_prompt: str | None = None
    inputs: Inputs | None = None

    @property
    def n_rows(self) -> int:
        """Rows of a workload that it takes: one for each continuation, and one behind the calibration prompt."""
        if self.inputs is not None:
            return self.inputs.n_rows
        return len(self.continuations) * (1 if self.calibration_prompt is None else 2)

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices as texts."""
        return tuple(one for one in self.continuations if isinstance(one, str))
