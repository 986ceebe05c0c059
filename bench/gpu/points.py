"""The workloads of BatchLLM's grid (arXiv 2412.03594, section 6), and how much work each of them is."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.workload import Workload
from umbel.sim.synthetic import Synthetic

MODEL = "llama-3.1-8b"
ROWS, OUTPUT = 6400, 100
POOL = 400_000  # tokens of the capped KV pool: what BatchLLM's baselines had on an A100


@dataclass(frozen=True, slots=True)
class Point:
    """Prompts of `prefix` + `own` tokens; `degree` rows share a prefix."""

    prefix: int
    own: int
    degree: int

    @property
    def name(self) -> str:
        """As the tables call it."""
        return f"{self.prefix}/{self.own} x{self.degree}"

    @property
    def tokens(self) -> int:
        """Tokens of one prompt."""
        return self.prefix + self.own

    def workload(self, rows: int, output: int = OUTPUT, seed: int = 0) -> Workload:
        """Shuffled rows that all say `output` tokens, whatever the model says."""
        return Synthetic(self.prefix, self.own, self.degree, rows, output, seed).workload()


SHAPES = ((2000, 200), (2000, 1000), (1000, 1000))
LONG = Point(16000, 200, 16)
GRID = (*(Point(prefix, own, degree) for prefix, own in SHAPES for degree in (2, 4, 16)), LONG)
APART = (Point(0, 1000, 1), Point(0, 200, 1))  # nothing is shared
SMALL = (Point(40, 10, 2),)


def parse_point(text: str) -> Point:
    """`PREFIX/OWNxDEGREE`, as in 2000/200x16."""
    sizes, _, degree = text.replace(" ", "").partition("x")
    prefix, _, own = sizes.partition("/")
    return Point(int(prefix), int(own), int(degree or 1))
