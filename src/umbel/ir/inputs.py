"""Texts of one row whose vectors are wanted, each a row of the workload: inputs, pairs, queries and documents."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.params import SamplingParams

Text = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a line to an endpoint for vectors asks for.

    `prompts`: texts or token ids. `params`: what is wanted of each. `is_paired`: the first half of the prompts is read
    together with the second half, each with its own, as one text. `left`: so many of the prompts stand on the left of
    scores, the others on the right. `as_base64`: how embeddings are written. `top_n`: so many documents of a ranking
    are wanted (None: all).
    """

    prompts: tuple[Text, ...]
    params: SamplingParams
    is_paired: bool = False
    left: int = 0
    as_base64: bool = False
    top_n: int | None = None

    @property
    def n_rows(self) -> int:
        """Rows of a workload that it takes."""
        return len(self.prompts) // 2 if self.is_paired else len(self.prompts)
