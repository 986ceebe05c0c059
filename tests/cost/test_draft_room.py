"""The memory that proposals may take, in pools that are wide and tight."""

from __future__ import annotations

import numpy as np
import pytest

from umbel.cost.draft_room import DraftRoom
from umbel.cost.drafts import Bargain

BARGAIN = Bargain(4.0, 3.0, 2.0)


@pytest.mark.parametrize(("page", "share"), [(1, 0.0), (2, 0.125), (16, 0.84375)])
def test_in_a_tight_pool_proposals_stand_in_last_pages(page: int, share: float) -> None:
    """Of pages of 16 tokens, 0 to 15 are left with equal chance: 0 + 1 + 2 + 3 + 12 * 4 of 16 * 4 proposed tokens."""
    room = DraftRoom(31, 8, page)
    assert room.is_tight(4.0)
    assert room.share(4.0) == share
    found = room.fit(BARGAIN)
    assert (found.drafted, found.accepted) == (4 * share, 3 * share)
    assert found.gain == pytest.approx(1 + share if share else 1)
    assert f"{share:.0%} of" in room.reason(BARGAIN)[0].format(**room.reason(BARGAIN)[1])


def test_in_a_wide_pool_all_are_checked() -> None:
    room = DraftRoom(32, 8, 1)
    assert room.fit(BARGAIN) == BARGAIN
    assert "leaves 32 tokens free beside 8" in room.reason(BARGAIN)[0].format(**room.reason(BARGAIN)[1])
    assert room.fit(Bargain()) == Bargain()
    full = DraftRoom(0, 8, 1, holds_all=True)
    assert full.fit(BARGAIN) == BARGAIN
    assert "holds all" in full.reason(BARGAIN)[0]


def test_steps_that_prompts_fill_have_room_for_few() -> None:
    """A third of the tokens is drawn in steps that are full, another where two more a sample fit, the rest with room
    for all: of four tokens each, 0, 2 and 4 find room there."""
    room = DraftRoom(100, 8, 16, True, np.array([0.0, 2.0, 50.0]), np.full(3, 1 / 3))
    assert room.fit(Bargain(4.0, 2.0, 1.6)) == Bargain(2.0, 1.0, pytest.approx(1.3))
    assert room.share(1.0) == pytest.approx(2 / 3)
    why, facts = room.reason(Bargain(4.0, 2.0, 1.6))
    assert "beside those of prompts" in why and facts["share"] == pytest.approx(0.5)
    assert DraftRoom(0, 8, 1, False, np.array([9.0]), np.ones(1)).share(4.0) == 0  # the pool has none
