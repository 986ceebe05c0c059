"""The experts of a mixture: how many there are, how many a token uses, and how wide each is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Experts:
    """In place of one gate, every layer but `dense_layers` has `count` experts with `width` inner units each; a token
    passes through `per_token` of them. `renormalised`: the weights of those add up to 1."""

    count: int
    per_token: int
    width: int
    renormalised: bool
    dense_layers: tuple[int, ...] = ()
