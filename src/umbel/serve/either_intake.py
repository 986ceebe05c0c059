"""The intake of a session that takes the prompts of requests, and rows of batches that are tokenised already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from umbel.engine.intake import Batch, Intake, Params, Prompt
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.jobs.stream import CheckedRows


@dataclass(slots=True)
class EitherIntake:
    """Reads prompts as `prompts` does, and leaves workloads as they are."""

    prompts: Intake

    @property
    def model(self) -> object:
        """The model that prompts are checked against."""
        return self.prompts.model

    @property
    def first_key(self) -> int:
        """What keys the draws of the next prompt."""
        return self.prompts.first_key

    @first_key.setter
    def first_key(self, key: int) -> None:
        """Have prompts draw by keys from this one on."""
        self.prompts.first_key = key

    def context_of(self, params: SamplingParams) -> int:
        """The most tokens of a prompt and its answer together."""
        return self.prompts.context_of(params)

    def take(
        self,
        prompts: Prompt | Iterable[Prompt] | Workload,
        params: Params | Sequence[Params] | None = None,
        keys: Sequence[int | str] | None = None,
    ) -> Batch:
        """Some prompts, or rows that were checked."""
        if isinstance(prompts, Workload):
            return CheckedRows(self.prompts.model).take(prompts)
        return self.prompts.take(prompts, params, keys)
