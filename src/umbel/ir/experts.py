"""The experts of a mixture: how many there are, how many a token uses, and how wide each is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a mixture: every layer but `dense_layers` has them in place of one gate.

    `count`: experts in a layer.
    `per_token`: how many of them a token passes through.
    `width`: inner units of each.
    `renormalised`: whether the weights of a token's experts are made to add up to 1.
    """

    count: int
    per_token: int
    width: int
    renormalised: bool
    dense_layers: tuple[int, ...] = ()
