"""Synthetic workloads: groups of prompts with a shared beginning, shuffled (BatchLLM, 2412.03594, section 6)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UsageError, nearest
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload

PREFIX = "synthetic:"
MOST_TOKENS = 2**30


@dataclass(frozen=True, slots=True)
class Synthetic:
    """`rows` prompts of `prefix` + `remainder` tokens; `degree` rows share a prefix; each generates `output` tokens."""

    prefix: int = 2000
    remainder: int = 200
    degree: int = 16
    rows: int = 6400
    output: int = 100
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Synthetic:
        """Read `synthetic:prefix=2000,remainder=200,...`; fields that are not named have their default. Raises
        UsageError."""
        known = [f.name for f in fields(cls)]
        values: dict[str, int] = {}
        for part in filter(None, text.removeprefix(PREFIX).split(",")):
            name, _, value = part.partition("=")
            if name not in known:
                raise UsageError(f"{text}: no setting {name!r}{nearest(name, known)}; known: {', '.join(known)}")
            least = 0 if name in ("prefix", "seed") else 1
            if not value.isdecimal() or int(value) < least:
                raise UsageError(f"{text}: {name}={value!r} must be a whole number of at least {least}")
            values[name] = int(value)
        made = cls(**values)
        if made.rows * (made.prefix + made.remainder) > MOST_TOKENS:
            raise UsageError(f"{text}: more than {MOST_TOKENS:,} prompt tokens; ask for fewer rows")
        return made

    def workload(self) -> Workload:
        """The prompts in shuffled order; groups differ in their first token, and rows of a group behind the prefix."""
        rng = np.random.default_rng(self.seed)
        groups = -(-self.rows // self.degree)
        row = rng.permutation(self.rows)
        shared = rng.integers(1, 30_000, (groups, self.prefix), np.int32)
        tokens = np.empty((self.rows, self.prefix + self.remainder), np.int32)
        if self.prefix:
            shared[:, 0] = np.arange(groups)
            np.take(shared, row // self.degree, axis=0, out=tokens[:, : self.prefix])
        tokens[:, self.prefix :] = rng.integers(1, 30_000, (1, self.remainder), np.int32)
        tokens[:, self.prefix] = row % self.degree if self.prefix else row
        return rectangular(tokens, SamplingParams(temperature=0.0, max_tokens=self.output, ignore_eos=True))


def rectangular(tokens: NDArray[np.int32], params: SamplingParams) -> Workload:
    """A workload of prompts of one length (`[rows, tokens]`) and the same parameters."""
    rows, width = tokens.shape
    return Workload(tokens.reshape(-1), np.arange(rows + 1) * width, [params] * rows, np.arange(rows))
