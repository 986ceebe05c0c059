"""Heavy hitters: the tokens that gathered most attention, and the last ones: H2O (arXiv 2306.14048).

A token's score is the weight that the queries from its own on gave it, summed over the heads of a group, by their
number: the published sum favours early tokens, which more queries see. The released evaluation sums over queries to
come as well; here an edge knows the queries before it alone. Sums are made of tiles of queries that begin at fixed
positions, so that chunks change no bit of them. Of what is kept half are heavy hitters, half the last tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from umbel.attention.forget.base import ALL, RowPath
from umbel.attention.select.lines import weights_of
from umbel.cost.forget import ShareMeasure
from umbel.ir.spec import ModelSpec

TILE = 128


class HeavyHitters(ShareMeasure):
    """Of the path so far a share `budget` is kept at most, at every position. Keeps the queries of all tokens that are
    in pages, since the weights of each tile of them are made once more."""

    needs = ALL

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        super().__init__(settings)

    def choose(self, path: RowPath) -> Tensor:
        """Go on with the sums, and keep the heaviest."""
        places, live = len(path.edit.sources), len(path.edit.targets)
        path.note(mass := gathered(path))
        recent = live - live // 2
        scores = mass[:, : places - recent, 0] / mass[:, : places - recent, 1]
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : live // 2].sort(1).values
        last = torch.arange(places - recent, places, device=best.device).expand(len(best), -1)
        return torch.cat((best, last), 1)


def gathered(path: RowPath) -> Tensor:
    """The weights that each place gathered in each head, and how many queries gave them: `[n_kv_heads, places, 2]`."""
    edit, shape = path.edit, path.shape
    places = len(edit.sources)
    found = path.keys.new_zeros(shape.n_kv_heads, places, 2)
    if path.notes is not None:
        found[:, : places - edit.raw] = path.notes
        found[:, : places - edit.raw, 1] += edit.raw
    found[:, places - edit.raw :, 1] = torch.arange(edit.raw, 0, -1)
    for begin, end in tiles(edit.before, edit.end):
        grouped = path.queries(begin, end).reshape(shape.n_kv_heads, shape.group_size, end - begin, -1)
        seen = places - edit.end + end
        for head, (mine, keys) in enumerate(zip(grouped, path.keys, strict=True)):
            found[head, :seen, 0] += weights_of(mine, keys[:seen], shape).sum((0, 1))
    return found


def tiles(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Positions from `begin` to `end` in tiles that end at multiples of TILE."""
    while begin < end:
        upto = min((begin // TILE + 1) * TILE, end)
        yield begin, upto
        begin = upto
