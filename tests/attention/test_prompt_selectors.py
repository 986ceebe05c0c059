"""What selectors of prompts find where it was planted, and what they promise of the weights of dense attention."""

from __future__ import annotations

import pytest
import torch

from tests.attention.planted import OnePath, kept, view_of
from umbel import registry
from umbel.attention.select.base import Selector
from umbel.attention.select.flex_prefill import HeadIndex
from umbel.attention.select.lines import PROBES, below
from umbel.kernels.view import GRID

KINDS = ("columns", "diagonals", "a-shape", "blocks", "flat")
LENGTH, WINDOW = 3072, 1024


def made(asked: str) -> Selector:
    """A selector as an option names it."""
    row = registry.find("select", asked.partition(":")[0])
    selector: Selector = row.load()(row.settings_of(asked), None)
    return selector


def index_of(path: OnePath, share: float, end: int) -> HeadIndex:
    """What FlexPrefill finds of a path up to where a window begins."""
    view_of(made(f"flex-prefill:mass={share}"), path, end, end + 1)
    index = path.notes[end - 1, "prompts"]
    assert isinstance(index, HeadIndex)
    return index


@pytest.mark.parametrize("share", [0.6, 0.95, 0.99])
def test_flex_prefill_keeps_its_share_of_the_measured_queries_on_every_head(share: float) -> None:
    """As measured from the dense map, for windows near and far; so it does not where one cell less is taken."""
    path, short = OnePath.of(*KINDS, *KINDS, length=LENGTH), 0
    for end in range(WINDOW, LENGTH, WINDOW):
        index, cells = index_of(path, share, end), end // GRID
        by_cell = path.weights(end - PROBES, end).mean(1).unflatten(1, (cells, GRID)).sum(2)
        read = index.columns | below(index.bands, cells - 1)
        own = torch.arange(cells) == cells - 1  # the cell that these queries stand in
        assert ((by_cell * (read | own)).sum(1) >= share - 1e-5).all()
        least = torch.where(read, by_cell, torch.inf).argmin(1, keepdim=True)
        short += int(((by_cell * read).sum(1) - by_cell.gather(1, least)[:, 0] < share).sum())
    assert short  # the bound is near


def test_flex_prefill_reads_much_where_weights_are_spread_and_little_where_they_are_not() -> None:
    path = OnePath.of(*KINDS, length=LENGTH)
    shares = {}
    for share in (0.5, 0.95):
        view = view_of(made(f"flex-prefill:mass={share}"), path, LENGTH - WINDOW, LENGTH)
        shares[share] = view.reads[:, :, : (LENGTH - WINDOW) // GRID].float().mean((0, 2))
    assert (shares[0.95][:4] < 0.6).all() and shares[0.95][4] > 0.95
    assert (shares[0.5] <= shares[0.95]).all() and shares[0.5][4] < 0.85


def test_flex_prefill_knows_cells_whose_keys_are_alike_from_lines() -> None:
    """Products of means predict what blocks get, and nothing of what single tokens and distances get."""
    path = OnePath.of("columns", "diagonals", "blocks", "columns", "blocks", length=LENGTH)
    assert index_of(path, 0.9, 2 * WINDOW).aware.tolist() == [False, False, True, False, True]


PLANTED = {
    "flex-prefill:mass=0.95": KINDS[:4],
    "vertical-slash:budget=0.5": KINDS[1:4],
    "a-shape:budget=0.1": ("a-shape",),
}


@pytest.mark.parametrize("asked", PLANTED)
def test_rows_behind_keep_what_was_planted(asked: str) -> None:
    """On every head, also if a single row of it may keep little; and an A-shape loses what lies in between."""
    path, begin = OnePath.of(*PLANTED[asked], length=LENGTH), LENGTH - WINDOW
    shares = kept(view_of(made(asked), path, begin, LENGTH), path, begin, LENGTH)
    assert shares.mean(1).min() > 0.95 and shares.min() > 0.5
    lost = OnePath.of("columns", length=LENGTH)
    assert kept(view_of(made("a-shape:budget=0.1"), lost, begin, LENGTH), lost, begin, LENGTH).max() < 0.3
