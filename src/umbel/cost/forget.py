"""How much of their paths rows keep, and from where on, by positions alone: what plans, schedulers and keepers share.

Positions at which a part of a path may be forgotten are its edges: the first one is the end of its prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from umbel.ir.spec import ModelSpec

GRID = 32
"""Most edges behind the first one lie at multiples of so many positions."""
SINKS = 16
"""First tokens that LagKV keeps."""
LEAST = 32
"""Places that a share of a path is at least."""


class Measure(Protocol):
    """The half of a keeper that looks at no key; for some the queries of all tokens in pages are kept."""

    @property
    def keeps_queries(self) -> bool:
        """Whether they are."""
        ...

    def last_edge(self, prompt: int, position: int) -> int:
        """The last edge up to a position, that included, of a row with such a prompt, which ends there or before."""
        ...

    def next_edge(self, prompt: int, end: int) -> int:
        """The first edge behind `end`, which is one."""
        ...

    def live(self, prompt: int, end: int) -> int:
        """The most places that the path up to `end`, an edge, may have from there on; at a later one more by at most
        the positions between the two."""
        ...


def held(measure: Measure, prompt: int, position: int) -> int:
    """Places of a path whose tokens up to `position` are computed, before anything is forgotten there."""
    edge = measure.last_edge(prompt, max(position - 1, prompt))
    return min(measure.live(prompt, edge), edge) + position - edge


def query_bytes(spec: ModelSpec, width: int) -> int:
    """Bytes of the queries of one token, of so many bytes a number."""
    return width * sum(shape.n_heads * shape.key_dim for shape in spec.kv_shapes)


class GridMeasure:
    """Edges at each multiple of the grid."""

    keeps_queries = False

    def last_edge(self, prompt: int, position: int) -> int:
        """Implement `Measure.last_edge`."""
        return max(position // GRID * GRID, prompt)

    def next_edge(self, prompt: int, end: int) -> int:
        """Implement `Measure.next_edge`."""
        return (end // GRID + 1) * GRID


class SinkWindowMeasure(GridMeasure):
    """`sinks` first places and `window` last ones."""

    def __init__(self, settings: Mapping[str, float]):
        self.sinks, self.window = int(settings["sinks"]), int(settings["window"])

    def live(self, prompt: int, end: int) -> int:
        """Implement `Measure.live`."""
        return self.sinks + self.window


class ShareMeasure(GridMeasure):
    """A share `budget` of the path so far at every position, with room for the tokens up to the next edge, by the
    weights of all queries."""

    keeps_queries = True

    def __init__(self, settings: Mapping[str, float]):
        self.share = settings["budget"]

    def live(self, prompt: int, end: int) -> int:
        """Implement `Measure.live`."""
        upto = self.next_edge(prompt, end)
        return max(LEAST, math.ceil(self.share * upto) - (upto - end))


class PromptShareMeasure(GridMeasure):
    """A share `budget` of the prompt, however long the answer gets."""

    def __init__(self, settings: Mapping[str, float]):
        self.share = settings["budget"]

    def live(self, prompt: int, end: int) -> int:
        """Implement `Measure.live`."""
        return end if self.share == 1 else max(LEAST, math.ceil(self.share * prompt))


class LagMeasure:
    """Edges where a part of `lag` tokens behind the sinks is full, of which all but the last are cut down to `kept`."""

    keeps_queries = False

    def __init__(self, settings: Mapping[str, float]):
        self.lag = int(settings["lag"])
        self.kept = math.ceil(settings["budget"] * self.lag)

    def last_edge(self, prompt: int, position: int) -> int:
        """Implement `Measure.last_edge`."""
        parts = (position - SINKS) // self.lag
        return max(SINKS + parts * self.lag, prompt) if parts > 0 else prompt

    def next_edge(self, prompt: int, end: int) -> int:
        """Implement `Measure.next_edge`."""
        return SINKS + max((end - SINKS) // self.lag + 1, 1) * self.lag

    def live(self, prompt: int, end: int) -> int:
        """Implement `Measure.live`."""
        return end - self.past(end) * (self.lag - self.kept)

    def past(self, end: int) -> int:
        """Parts that are cut down once the path reaches `end`: all full ones but the last."""
        return max((end - SINKS) // self.lag - 1, 0)
