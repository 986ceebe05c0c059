"""How much of prompts is left out where a draft model chooses what is read, by lengths alone."""

from __future__ import annotations

import math

PART = 32
"""Tokens of a part, of which prompts keep some and leave the others out."""


def parts_kept(own: int, share: float) -> tuple[int, int]:
    """How many parts the tokens are that a prompt shares with no other, and how many of these stay, the first and the
    last among them."""
    parts = -(-own // PART)
    return parts, min(max(2, math.ceil(share * parts)), parts)


def left_out(own: int, share: float) -> int:
    """Tokens that are left out of so many: whole parts."""
    parts, kept = parts_kept(own, share)
    return (parts - kept) * PART
